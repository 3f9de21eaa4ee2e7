"""Zeros appear where the recipe wants them, and stay through folding and int8."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.errors import StructureError
from smidgen.export.recipe import SparsityRecipe


def zeros(kernel: np.ndarray) -> float:
    return float((kernel == 0).mean())


def first(network, kind: str):
    return next(layer for layer in network.layers if type(layer).__name__ == kind)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_single_weights(workshop, kernels_of, share):
    from smidgen.export.guest.sparsity import sparsify

    shop = workshop(9)
    network = shop.source.load()
    result = sparsify(network, SparsityRecipe(share=share, epochs=1), shop)
    assert len(shop.tuner.losses) == 9 and len(set(shop.tuner.losses)) > 5, "it is trained"
    for name, kernel in kernels_of(result.network).items():
        assert abs(zeros(kernel) - share) <= 1 / kernel.size + 1e-6, name
    assert zeros(first(result.network, "DepthwiseConv2D").get_weights()[0]) == 0
    norm = first(result.network, "BatchNormalization")
    before = first(network, "BatchNormalization")
    assert not np.allclose(norm.moving_mean, before.moving_mean), "statistics are learnt"
    assert all(zeros(kernel) == 0 for kernel in kernels_of(network).values()), "the source is whole"
    assert result.facts["pattern"] == "single" and "6 kernels" in result.facts["zeros"]
    (wish,) = shop.tuner.wishes
    assert wish.plan.keep == "last", "the best validation may be of a network without zeros"


def test_zeros_stay_in_the_int8_file(workshop, kernels_of):
    from ai_edge_litert.interpreter import Interpreter

    from smidgen.export.formats.to_tflite import to_tflite_int8
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.guest.sparsity import sparsify

    shop = workshop(4)
    result = sparsify(shop.source.load(), SparsityRecipe(share=0.75, epochs=1), shop)
    folded = fold_batch_norms(result.network).model
    data = to_tflite_int8(folded, shop.source.normalization, shop.calibration, lambda _: None)
    interpreter = Interpreter(model_content=data)
    sizes = {kernel.size: zeros(kernel) for kernel in kernels_of(folded).values()}
    found = 0
    for detail in interpreter.get_tensor_details():
        size = int(np.prod(detail["shape"]))
        if detail["dtype"] == np.int8 and size in sizes and len(detail["shape"]) in (2, 4):
            try:
                codes = interpreter.get_tensor(detail["index"])
            except ValueError:  # an activation
                continue
            found += 1
            assert zeros(codes) >= sizes[size] - 1 / size
    assert found >= 5


def test_two_of_four(workshop, kernels_of):
    from smidgen.export.guest.sparsity import most_of_four, sparsify

    shop = workshop(3)
    settings = SparsityRecipe(share=0.5, pattern="2:4", epochs=1)
    network = shop.source.load()
    result = sparsify(network, settings, shop)
    for kernel in kernels_of(result.network).values():
        assert most_of_four(kernel) == 2
        if kernel.shape[-2] % 4 == 0:
            assert zeros(kernel) == 0.5
    assert {most_of_four(kernel) for kernel in kernels_of(network).values()} == {3, 4}


def test_blocks_of_sixteen_channels(workshop, kernels_of):
    from smidgen.export.guest.sparsity import sparsify, zero_blocks

    shop = workshop(3)
    settings = SparsityRecipe(share=0.5, pattern="block-1x16", epochs=1)
    result = sparsify(shop.source.load(), settings, shop)
    wide = {name: k for name, k in kernels_of(result.network).items() if k.shape[-1] == 32}
    assert len(wide) == 2
    for name, kernel in kernels_of(result.network).items():
        if name in wide:
            assert zero_blocks(kernel).mean() == 0.5 == zeros(kernel)
        else:
            assert zeros(kernel) == 0, "tfmot takes no matrix that is one block wide"
    assert "2 kernels" in result.facts["zeros"]


def test_a_tuning_without_steps_gets_its_zeros_in_the_end(workshop, kernels_of):
    """The planted fault of tfmot's interval of 100 steps: no mask is made in the tuning itself."""
    from smidgen.export.guest.sparsity import sparsify

    shop = workshop(0)
    result = sparsify(shop.source.load(), SparsityRecipe(share=0.5, epochs=1), shop)
    assert all(abs(zeros(k) - 0.5) < 0.02 for k in kernels_of(result.network).values())


def test_missing_zeros_are_an_error():
    from smidgen.export.guest.sparsity import _check

    kernel = np.ones((1, 1, 8, 32), np.float32)
    kernel[..., :16] = 0
    assert _check("a", kernel, SparsityRecipe(share=0.5)) == 0.5
    with pytest.raises(StructureError, match=r"layer a: 0\.5000 of its weights are zero, expected"):
        _check("a", kernel, SparsityRecipe(share=0.6))
    with pytest.raises(StructureError, match="of its blocks are zero"):
        _check("a", np.roll(kernel, 1, -1), SparsityRecipe(share=0.5, pattern="block-1x16"))
    with pytest.raises(StructureError, match="4 of 4 weights are not zero, expected 2"):
        _check("a", kernel, SparsityRecipe(share=0.5, pattern="2:4"))


def test_no_wide_kernel_for_blocks_is_an_error(workshop, small_network):
    from smidgen.export.guest.sparsity import sparsify
    from smidgen.export.tensorflow_backend import keras

    network = small_network()
    short = keras.Model(network.input, network.layers[1].output)
    settings = SparsityRecipe(share=0.5, pattern="block-1x16", epochs=1)
    with pytest.raises(StructureError, match="more than 16 channels"):
        sparsify(short, settings, workshop(1))
