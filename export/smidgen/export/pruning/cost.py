"""What a network costs: multiply-adds, parameters, and bytes as an int8 file, layer by layer.

A multiply-add is one multiplication with its addition (papers that count FLOPs say twice as many).
Batch normalisation counts none, since export folds it into the convolution before it; neither do
additions of biases, activations and pooling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from smidgen.export.tensorflow_backend import keras

INT8_BYTES_PER_CHANNEL = 28
"""Of an output channel in a TFLite file: its int32 bias, and float32 scale and int64 zero point of
the kernel and of the bias."""


@dataclass(frozen=True)
class Kernel:
    """One kernel that is moved over an image, or applied once (a dense layer).

    ``positions``: how often it is applied for one image. ``area``: height times width.
    ``width_in``: channels that one output is summed over, 1 for a depthwise kernel.
    ``width_out``: output channels.
    """

    layer: str
    positions: int
    area: int
    width_in: int
    width_out: int

    @property
    def weights(self) -> int:
        """Numbers in the kernel, without biases."""
        return self.area * self.width_in * self.width_out

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return self.positions * self.weights

    @property
    def int8_bytes(self) -> int:
        """In an int8 TFLite file: a byte for each weight, and what each channel needs."""
        return self.weights + INT8_BYTES_PER_CHANNEL * self.width_out


@dataclass(frozen=True)
class NetworkCost:
    """Sums over a network for one image; ``int8_bytes`` is an estimate of the weights' share."""

    multiply_adds: int
    parameters: int
    int8_bytes: int
    kernels: tuple[Kernel, ...]


def cost_of(network: Any) -> NetworkCost:
    """What the functional Keras ``network`` of a fixed image size costs.

    ``parameters`` are all trainable ones, scale and offset of batch norms included, as papers count
    them. EfficientNet-Lite0 at 224 px with 1,000 classes: 4.65 million parameters, as in its
    authors' table, and 385 million multiply-adds, where the table gives 407 million (why is not
    known here); MobileNetV2 and ResNet50 come within 2 % of their papers.
    """
    kernels = tuple(kernels_of(network))
    trained = {id(v): v for layer in network.layers for v in _trained_numbers(layer)}
    return NetworkCost(
        multiply_adds=multiply_adds(kernels),
        parameters=sum(math.prod(variable.shape) for variable in trained.values()),
        int8_bytes=int8_bytes(kernels),
        kernels=kernels,
    )


def multiply_adds(kernels: Iterable[Kernel]) -> int:
    """Sum for one image."""
    return sum(kernel.multiply_adds for kernel in kernels)


def int8_bytes(kernels: Iterable[Kernel]) -> int:
    """Sum; a kernel that is used several times must be given once."""
    return sum(kernel.int8_bytes for kernel in kernels)


def kernels_of(network: Any) -> Iterator[Kernel]:
    """The kernels of convolutions and dense layers, in the order of the layers.

    A layer that is used several times has the sum of its positions.
    """
    inside = {id(node) for nodes in network._nodes_by_depth.values() for node in nodes}
    for layer in network.layers:
        nodes = [node for node in layer._inbound_nodes if id(node) in inside]
        positions = sum(_positions(node.output_tensors[0].shape) for node in nodes)
        yield from _kernels(layer, positions)


def _kernels(layer: Any, positions: int) -> Iterator[Kernel]:
    layers = keras.layers
    if isinstance(layer, layers.Dense):
        width_in, width_out = layer.kernel.shape
        yield Kernel(layer.name, positions, 1, width_in, width_out)
    elif isinstance(layer, layers.DepthwiseConv2D):
        *area, width_in, multiplier = layer.kernel.shape
        yield Kernel(layer.name, positions, math.prod(area), 1, width_in * multiplier)
    elif isinstance(layer, layers.SeparableConv2D):
        *area, width_in, multiplier = layer.depthwise_kernel.shape
        width_out = layer.pointwise_kernel.shape[-1]
        yield Kernel(layer.name, positions, math.prod(area), 1, width_in * multiplier)
        yield Kernel(layer.name, positions, 1, width_in * multiplier, width_out)
    elif isinstance(layer, layers.Conv2D):
        *area, width_in, width_out = layer.kernel.shape
        yield Kernel(layer.name, positions, math.prod(area), width_in, width_out)


def _positions(shape: tuple[int | None, ...]) -> int:
    """Of ``(N, ..., C)``: the product of what is between, for one image."""
    return math.prod(size or 1 for size in shape[1:-1])


def _trained_numbers(layer: Any) -> list[Any]:
    """Whether the layer is frozen at the moment or not."""
    moving = ("moving_mean", "moving_variance")
    return [v for v in layer.weights if v.name not in moving and "seed" not in v.name]
