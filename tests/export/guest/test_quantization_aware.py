"""Training with int8's rounding: what is trained is what the int8 file computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smidgen.export.recipe import ClusteringRecipe, QatRecipe, QuantizationRecipe, SparsityRecipe


def answers(data: bytes, pixels: np.ndarray) -> np.ndarray:
    """Probabilities ``(N, classes)`` of an int8 file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for image in pixels.astype(np.uint8):
        interpreter.set_tensor(entry["index"], image[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(end["index"])[0] / 256)
    return np.stack(rows)


def trained(shop: Any, network: Any) -> Any:
    from smidgen.export.guest.quantization_aware import quantization_aware

    return quantization_aware(network, QatRecipe(epochs=1), shop, QuantizationRecipe())


@pytest.mark.slow
def test_without_training_the_file_is_near_the_float_network(workshop):
    import keras

    shop = workshop(0)
    network = shop.source.load()
    result = trained(shop, network)
    expected = np.asarray(keras.ops.softmax(network(shop.tuner.inputs)))
    got = answers(result.tflite, shop.tuner.pixels)
    assert np.abs(got - expected).mean() < 0.03
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.9
    assert np.abs(got[::-1] - expected).mean() > 0.1, "other pictures would be seen"
    number, of = map(int, result.facts["activations"].split(" rounded")[0].split(" of "))
    assert 0 < number <= of


@pytest.mark.slow
def test_the_file_computes_what_was_trained(workshop):
    shop = workshop(30, 0.03)
    network = shop.source.load()
    before = trained(workshop(0), network)
    result = trained(shop, network)
    assert shop.tuner.losses[-1] < shop.tuner.losses[0]
    assert result.tflite != before.tflite
    losses = [
        -np.log(answers(file.tflite, shop.tuner.pixels)[range(16), shop.tuner.labels] + 1e-3).mean()
        for file in (before, result)
    ]
    assert losses[1] < losses[0]
    assert abs(losses[1] - shop.tuner.losses[-1]) < 0.2


@pytest.mark.slow
def test_zeros_and_clusters_stay(workshop, kernels_of, int8_kernels):
    import keras

    from smidgen.export.guest.clustering import cluster
    from smidgen.export.guest.sparsity import sparsify
    from smidgen.export.guest.structure import Structure, structure_of

    shop = workshop(3)
    network = shop.source.load()
    sparse = sparsify(network, SparsityRecipe(share=0.6, epochs=1), shop).network
    both = cluster(sparse, ClusteringRecipe(clusters=32, epochs=1), shop).network
    result = trained(workshop(6, 0.02), both)
    shares = {k.size: float((k == 0).mean()) for k in kernels_of(both).values()}
    found = [k for k in int8_kernels(result.tflite) if k.shape[0] != 1 and k.size in shares]
    assert len(found) >= 5
    for kernel in found:
        assert (kernel == 0).mean() >= shares[kernel.size] - 1e-6
        assert len(np.unique(kernel)) <= 34
    nudged = keras.models.clone_model(both)
    random = np.random.default_rng(0)
    nudged.set_weights([w + random.normal(0, 1e-3, w.shape) for w in both.get_weights()])
    assert structure_of(nudged) == Structure()
    loose = trained(workshop(6, 0.02), nudged)
    kernels = [k for k in int8_kernels(loose.tflite) if k.shape[0] != 1 and k.size in shares]
    assert any((k == 0).mean() < shares[k.size] - 0.01 for k in kernels), "nothing held them"


def test_wrong_ranges_are_seen(workshop):
    """The planted fault: ranges that start at a thousandth of what they should be."""
    from smidgen.export.guest.copier import copy_to_guest
    from smidgen.export.guest.fake_quantization import fake_quantized
    from smidgen.export.guest.quantization_aware import _agreement
    from smidgen.export.quantization.numbers import Code

    shop = workshop(1)
    network = shop.source.load()
    model = copy_to_guest(network).model
    names = [layer.name for layer in model.layers if "re_lu" in layer.name]
    for scale, is_near in ((6 / 255, True), (1e-3, False)):
        codes = dict.fromkeys(names, Code(scale, -128))
        guest = fake_quantized(model, codes, frozenset(), is_sparse=False)
        agreement = _agreement(network, guest, shop.tuner.inputs)
        assert (agreement >= 0.9) == is_near, agreement


def test_a_network_that_does_not_start_is_refused():
    from smidgen.export.errors import QatError
    from smidgen.export.guest.quantization_aware import _refuse_far

    _refuse_far(0.95)
    with pytest.raises(QatError, match=r"changes 6\.0 % of the answers .allowed 5 %."):
        _refuse_far(0.94)
