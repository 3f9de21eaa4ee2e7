"""Channel pruning before the other passes: all that each promises holds in the int8 file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smidgen.export.recipe import (
    ChannelsRecipe,
    ClusteringRecipe,
    QatRecipe,
    QuantizationRecipe,
    SparsityRecipe,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def pruned(workshop: Any) -> Any:
    """The small network without 40 % of its cost."""
    from smidgen.export.pruning.channels import prune_channels

    shop = workshop(0)
    network = shop.source.load()
    return prune_channels(network, ChannelsRecipe(keep=0.6, epochs=0), shop).network


def int8_file(shop: Any, network: Any) -> bytes:
    from smidgen.export.formats.to_tflite import to_tflite_int8
    from smidgen.export.graphs.fold import fold_batch_norms

    folded = fold_batch_norms(network).model
    return to_tflite_int8(folded, shop.source.normalization, shop.calibration, lambda _: None)


def widths(network: Any) -> list[int]:
    kinds = ("Conv2D", "DepthwiseConv2D", "Dense")
    layers = [layer for layer in network.layers if type(layer).__name__ in kinds]
    return sorted(int(layer.output.shape[-1]) for layer in layers)


def file_widths(kernels: list[np.ndarray]) -> list[int]:
    """A depthwise kernel is ``(1, H, W, C)`` in a file, others ``(out, ...)``."""
    return sorted(k.shape[-1] if k.ndim == 4 and k.shape[0] == 1 else k.shape[0] for k in kernels)


def is_near(shop: Any, network: Any, data: bytes) -> bool:
    """Whether the file's probabilities are those of the network, and not of other pictures."""
    import keras
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    got = []
    for image in shop.tuner.pixels.astype(np.uint8):
        interpreter.set_tensor(entry["index"], image[np.newaxis])
        interpreter.invoke()
        got.append(interpreter.get_tensor(end["index"])[0] / 256)
    expected = np.asarray(keras.ops.softmax(network(shop.tuner.inputs)))
    right, wrong = (np.abs(np.stack(rows) - expected).mean() for rows in (got, got[::-1]))
    return bool(right < 0.09 and wrong > 2 * right)


def test_channels_alone(workshop, pruned, int8_kernels) -> None:
    shop = workshop(0)
    whole = shop.source.load()
    file = int8_file(shop, pruned)
    assert file_widths(int8_kernels(file)) == widths(pruned)
    assert sum(widths(pruned)) < 0.85 * sum(widths(whole))
    assert len(file) < len(int8_file(shop, whole))
    assert is_near(shop, pruned, file)


@pytest.mark.parametrize("pattern", ["single", "2:4"])
def test_channels_and_sparsity(workshop, pruned, kernels_of, int8_kernels, pattern) -> None:
    from smidgen.export.guest.sparsity import sparsify

    shop = workshop(2)
    result = sparsify(pruned, SparsityRecipe(share=0.5, pattern=pattern, epochs=1), shop).network
    file = int8_file(shop, result)
    assert widths(result) == widths(pruned)
    assert file_widths(int8_kernels(file)) == widths(pruned)
    shares = {k.size: float((k == 0).mean()) for k in kernels_of(result).values()}
    assert sum(share >= 0.49 for share in shares.values()) >= 2
    for kernel in int8_kernels(file):
        if kernel.size in shares and kernel.shape[0] != 1:
            assert (kernel == 0).mean() >= shares[kernel.size] - 1e-6
    if pattern == "single":  # 2:4 leaves nothing of a network of random weights
        assert is_near(shop, result, file)


def test_channels_and_clusters(workshop, pruned, int8_kernels) -> None:
    from smidgen.export.guest.clustering import cluster, clusterable

    shop = workshop(2)
    result = cluster(pruned, ClusteringRecipe(clusters=8, epochs=1), shop).network
    file = int8_file(shop, result)
    assert widths(result) == widths(pruned)
    kernels = int8_kernels(file)
    assert file_widths(kernels) == widths(pruned)
    sizes = {result.get_layer(n).get_weights()[0].size for n in clusterable(result)}
    clustered = [k for k in kernels if k.size in sizes and k.shape[0] != 1]
    assert len(clustered) >= 3
    for kernel in clustered:
        for channel in kernel.reshape(len(kernel), -1):
            assert len(np.unique(channel)) <= 8
    loose = [k for k in int8_kernels(int8_file(shop, pruned)) if k.size in sizes]
    assert any(len(np.unique(k)) > 20 for k in loose), "without the pass there are many"
    assert is_near(shop, result, file)


def test_channels_and_quantization_aware_training(workshop, pruned, int8_kernels) -> None:
    from smidgen.export.guest.quantization_aware import quantization_aware

    shop = workshop(3, 1e-4)
    result = quantization_aware(pruned, QatRecipe(epochs=1), shop, QuantizationRecipe())
    assert len(set(shop.tuner.losses)) == 3, "it is trained"
    assert file_widths(int8_kernels(result.tflite)) == widths(pruned)
    assert is_near(shop, pruned, result.tflite)
