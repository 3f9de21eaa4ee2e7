"""Rescaling channels so that they fill the 256 codes of their tensor alike, the function unchanged.

A channel that leaves one kernel ``s`` times as large and enters the next through weights ``1 / s``
as large changes nothing (cross-layer equalization: Nagel et al. 2019, arXiv:1906.04721). It holds
through everything that is linear for positive factors: ReLU, sums (all terms share the factors),
pooling, padding with zeros. It does not hold through ReLU6: a channel that stays below 6 on the
calibration images, scaled up to 6, clips on others (measured on EfficientNet-Lite0, 100 images:
the logits of other images moved by up to 2.3), so such tensors are left alone.

The factors serve the activations: kernels have a scale for each output channel already. Since a
factor costs precision in the next kernel, whose scale spans all input channels, a power of it is
taken (as in SmoothQuant, arXiv:2211.10438), chosen by the predicted noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.quantization.histogram import Histogram
from smidgen.export.quantization.kernels import is_clustered
from smidgen.export.quantization.numbers import set_data
from smidgen.export.quantization.pairing import (
    Pair,
    PairedGraph,
    bias_index,
    is_constant,
)

_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LARGEST_FACTOR = 64.0
_NONE, _RELU = 0, 1
_SAME = frozenset({"ADD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD"})
_KERNEL_NOISE = 0.3
"""Of rounding to nearest, what rounding together and the bias correction leave."""


@dataclass
class ChannelGroup:
    """Float tensors whose channels share their factors, who makes them and who takes them."""

    tensors: list[int]
    makers: list[Pair] = field(default_factory=list)
    takers: list[Pair] = field(default_factory=list)


def equalize(graph: PairedGraph, histograms: dict[int, Histogram]) -> int:
    """Rescale the float graph's kernels and biases in place; how many groups changed."""
    changed = 0
    for group in channel_groups(graph):
        factors = _factors(graph, group, histograms)
        if np.ptp(factors) > 0:
            _apply(graph, group, factors)
            changed += 1
    return changed


def channel_groups(graph: PairedGraph) -> list[ChannelGroup]:
    """All groups whose channels can be rescaled without changing the network's answers."""
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        parent.setdefault(index, index)
        while parent[index] != index:
            index = parent[index]
        return index

    pinned = {int(i) for ends in _ends(graph) for i in ends}
    for pair in graph.pairs:
        inputs, outputs = _active(graph, pair)
        fused = _fused(pair)
        if pair.is_weighted and _is_free(graph, pair):
            pinned.update(() if fused in (_NONE, _RELU) else outputs)
        elif pair.kind in _SAME and fused in (_NONE, _RELU) and _keeps_channels(graph, pair):
            for index in (*inputs, *outputs):
                parent[root(index)] = root(outputs[0])
        else:
            pinned.update((*inputs, *outputs))
        for index in (*inputs, *outputs):
            root(index)
    held = {root(index) for index in pinned if index in parent}
    groups: dict[int, ChannelGroup] = {}
    for index in sorted(parent):
        if root(index) not in held:
            group = groups.setdefault(root(index), ChannelGroup([]))
            group.tensors.append(index)
    for pair in graph.pairs:
        if pair.is_weighted:
            inputs, outputs = _active(graph, pair)
            if root(inputs[0]) in groups:
                groups[root(inputs[0])].takers.append(pair)
            if root(outputs[0]) in groups:
                groups[root(outputs[0])].makers.append(pair)
    return [g for g in groups.values() if g.makers and g.takers]


def _factors(
    graph: PairedGraph, group: ChannelGroup, histograms: dict[int, Histogram]
) -> NDArray[np.float64]:
    """The factors ``(channels,)`` with the least predicted noise."""
    seen = [histograms[index] for index in group.tensors if index in histograms]
    low = np.min([one.channel_low for one in seen], axis=0)
    high = np.max([one.channel_high for one in seen], axis=0)
    size = np.maximum(np.maximum(high, -low), 1e-9)
    full = size.max() / size
    full = np.asarray(np.clip(full, 1.0, _LARGEST_FACTOR), np.float64)
    if all(taker.kind == "DEPTHWISE_CONV_2D" for taker in group.takers):
        return full
    squares = np.mean([one.channel_mean_square for one in seen], axis=0)
    noises = [_noise(graph, group, full**power, (low, high, squares)) for power in _POWERS]
    return np.asarray(full ** _POWERS[int(np.argmin(noises))], np.float64)


def _noise(
    graph: PairedGraph,
    group: ChannelGroup,
    factors: NDArray[np.float64],
    seen: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> float:
    """Expected squared error of the takers' outputs, of the codes and of their kernels."""
    low, high, squares = seen
    step = ((factors * high).max() - min(0.0, (factors * low).min())) / 255
    noise = 0.0
    for taker in group.takers:
        if taker.kind == "DEPTHWISE_CONV_2D":
            continue
        kernel = graph.kernel(taker).astype(np.float64)
        kernel = kernel.reshape(kernel.shape[0], -1, kernel.shape[-1]) / factors
        noise += step**2 / 12 * float((kernel**2).sum())
        steps = np.abs(kernel).max(axis=(1, 2)) / 127
        entering = kernel.shape[1] * float((squares * factors**2).sum())
        noise += _KERNEL_NOISE * float((steps**2).sum()) / 12 * entering
    return noise


def _apply(graph: PairedGraph, group: ChannelGroup, factors: NDArray[np.float64]) -> None:
    for maker in group.makers:
        kernel = graph.kernel(maker)
        shape = [1] * kernel.ndim
        shape[maker.kernel_axis] = -1
        _set(graph, int(maker.float_operator.inputs[1]), kernel * factors.reshape(shape))
        bias = graph.bias(maker)
        if bias is not None:
            _set(graph, bias_index(maker.float_operator), bias * factors)
    for taker in group.takers:
        kernel = graph.kernel(taker)
        entering = factors
        if taker.kind == "DEPTHWISE_CONV_2D":
            entering = np.repeat(factors, kernel.shape[-1] // len(factors))
        _set(graph, int(taker.float_operator.inputs[1]), kernel / entering)


def _set(graph: PairedGraph, index: int, values: NDArray[Any]) -> None:
    set_data(graph.float_model, graph.float_tensor(index), values.astype(np.float32))


def _ends(graph: PairedGraph) -> tuple[Any, Any]:
    main = graph.float_model.subgraphs[0]
    return main.inputs, main.outputs


def _active(graph: PairedGraph, pair: Pair) -> tuple[list[int], list[int]]:
    """The inputs that are no constants, and the outputs."""
    model, operator = graph.float_model, pair.float_operator
    inputs = [int(i) for i in operator.inputs if i >= 0 and not is_constant(model, int(i))]
    return inputs, [int(i) for i in operator.outputs]


def _fused(pair: Pair) -> int:
    return int(getattr(pair.float_operator.builtinOptions, "fusedActivationFunction", _NONE) or 0)


def _is_free(graph: PairedGraph, pair: Pair) -> bool:
    """Whether its kernel is its own, not clustered, and its channels are the last axes."""
    kernel = graph.kernel(pair)
    index = int(pair.float_operator.inputs[1])
    users = [
        other
        for other in graph.pairs
        if other.is_weighted and other.float_operator.inputs[1] == index
    ]
    entering = graph.float_tensor(int(pair.float_operator.inputs[0])).shape[-1]
    takes = (
        kernel.shape[-1] % entering == 0
        if pair.kind == "DEPTHWISE_CONV_2D"
        else (kernel.shape[-1] == entering)
    )
    return len(users) == 1 and bool(takes) and not is_clustered(kernel, pair.kernel_axis)


def _keeps_channels(graph: PairedGraph, pair: Pair) -> bool:
    """Whether the channels of all its activations correspond and nothing constant is added."""
    inputs, outputs = _active(graph, pair)
    shapes = [tuple(graph.float_tensor(index).shape) for index in (*inputs, *outputs)]
    if pair.kind == "ADD":
        return len(inputs) == 2 and len(set(shapes)) == 1
    return len(inputs) == 1 and shapes[0][-1] == shapes[-1][-1]
