"""What layers read: the 1x1 convolutions and dense layers of a network, and samples of their
inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.source import ChannelNormalization
from smidgen.export.tensorflow_backend import keras, tf

_POSITIONS = 49
"""Of each image and layer, spread evenly: all of a 7 x 7 map."""

_BATCH = 16


@dataclass(frozen=True)
class SampleImages:
    """``pixels``: ``(N, H, W, 3) uint8``, at least eight."""

    pixels: NDArray[np.uint8]
    normalization: ChannelNormalization

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Normalised ``(n, H, W, 3) float32``."""
        mean = np.asarray(self.normalization.mean, np.float32)
        std = np.asarray(self.normalization.std, np.float32)
        for start in range(0, len(self.pixels), _BATCH):
            yield (self.pixels[start : start + _BATCH].astype(np.float32) - mean) / std


def is_reader(layer: Any) -> bool:
    """Whether each output is a weighted sum of the channels at one position."""
    if isinstance(layer, keras.layers.Dense):
        return True
    if not isinstance(layer, keras.layers.Conv2D):
        return False
    if isinstance(layer, keras.layers.DepthwiseConv2D) or layer.groups != 1:
        return False
    return tuple(layer.kernel_size) == tuple(layer.strides) == (1, 1)


def matrix_of(layer: Any) -> NDArray[np.float64]:
    """The kernel of a reader, ``(in, out)``."""
    kernel = np.asarray(layer.kernel, np.float64)
    return kernel.reshape(kernel.shape[-2:])


def inputs_of(
    network: Any, names: Sequence[str], images: SampleImages
) -> Iterator[list[NDArray[np.float32]]]:
    """For each batch, and each layer ``(n, P, in)``: what it reads at up to 49 positions."""
    inputs = [_spread(network.get_layer(name).input) for name in names]
    probe = keras.Model(network.input, inputs)
    run = tf.function(lambda pixels: probe(pixels, training=False), autograph=False)
    for pixels in images.batches():
        given = run(tf.constant(pixels))
        yield [np.asarray(values) for values in (given if isinstance(given, list) else [given])]


def covariances_of(
    network: Any, names: Sequence[str], images: SampleImages
) -> dict[str, NDArray[np.float64]]:
    """Of the inputs of each layer, ``(in, in)``: means go into biases and do not count."""
    squares = {name: np.zeros(()) for name in names}
    sums = {name: np.zeros(()) for name in names}
    rows = dict.fromkeys(names, 0)
    for batch in inputs_of(network, names, images):
        for name, given in zip(names, batch):
            flat = given.reshape(-1, given.shape[-1]).astype(np.float64)
            squares[name] = squares[name] + flat.T @ flat
            sums[name] = sums[name] + flat.sum(axis=0)
            rows[name] += len(flat)
    means = {name: sums[name] / rows[name] for name in names}
    return {name: squares[name] / rows[name] - np.outer(mean, mean) for name, mean in means.items()}


def _spread(tensor: Any) -> Any:
    """``(N, ..., C)`` to ``(N, P, C)``: at most ``_POSITIONS`` of a map, evenly spread."""
    channels = int(tensor.shape[-1])
    size = int(np.prod(tensor.shape[1:-1], dtype=np.int64))
    flat = keras.layers.Reshape((size, channels))(tensor)
    if size <= _POSITIONS:
        return flat
    chosen = np.linspace(0, size - 1, _POSITIONS).round().astype(np.int64)
    return keras.ops.take(flat, chosen, axis=1)
