"""Writing scales, zero points, int8 kernels and int32 biases into the integer graph.

Formats are those of the TFLite 8-bit quantization specification: ``real = (code - zero point) *
scale``; activations int8 with any zero point, kernels int8 in -127..127 with zero point 0, biases
int32 with zero point 0 and the product of the input's and the kernel's scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import PairingError
from smidgen.export.formats.tflite_file import operators
from smidgen.export.quantization.calibrators import STEPS, Range
from smidgen.export.quantization.pairing import (
    RESCALING,
    Pair,
    PairedGraph,
    along,
    bias_index,
    is_constant,
)

LARGEST_WEIGHT = 127
_INT8, _INT32 = 9, 2
_LARGEST_BIAS = 2**31 - 1
_SMALLEST_SCALE = 1e-8

_ONE_SCALE = frozenset(
    {
        "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD",
        "CONCATENATION", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE", "GATHER",
        "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TILE",
        "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND",
        "BROADCAST_TO", "MAXIMUM", "MINIMUM",
    }
)  # fmt: skip
"""Operators that move or compare codes, so that their inputs and outputs must share a scale."""

_FIXED_OUTPUT = frozenset({"SOFTMAX", "LOGISTIC", "TANH", "LOG_SOFTMAX", "L2_NORMALIZATION"})
"""Operators whose output code the specification fixes."""


@dataclass(frozen=True)
class Code:
    """``real = (code - zero_point) * scale`` with int8 codes."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, low: float, high: float) -> Code:
        """The code over ``low..high``, widened to hold zero, which gets a code of its own."""
        low, high = min(0.0, low), max(0.0, high)
        scale = float(np.float32(max((high - low) / STEPS, _SMALLEST_SCALE)))
        zero_point = int(np.clip(np.rint(-128 - low / scale), -128, 127))
        return cls(scale, zero_point)

    @property
    def range(self) -> Range:
        """The real numbers of the codes -128 and 127."""
        return (-128 - self.zero_point) * self.scale, (127 - self.zero_point) * self.scale

    def dequantized(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """The real numbers of codes of any shape."""
        return (codes.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


def code_of(graph: PairedGraph, index: int) -> Code:
    """The code of an integer activation; scale 0 for a tensor without one."""
    quantization = graph.integer_tensor(index).quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return Code(0.0, 0)
    return Code(float(quantization.scale[0]), int(quantization.zeroPoint[0]))


def set_code(graph: PairedGraph, index: int, code: Code) -> None:
    """Give an integer activation a code, in place."""
    quantization = graph.integer_tensor(index).quantization
    quantization.scale = np.asarray([code.scale], np.float32)
    quantization.zeroPoint = np.asarray([code.zero_point], np.int64)
    quantization.min = quantization.max = None


def shared_codes(graph: PairedGraph) -> tuple[tuple[int, ...], ...]:
    """The integer activations that are free to be set, in groups that need one code each.

    Left out are the graph's ends, outputs whose code is fixed, and all that share a code with them
    or with a constant.
    """
    parent: dict[int, int] = {}

    def root(index: int) -> int:
        parent.setdefault(index, index)
        while parent[index] != index:
            index = parent[index]
        return index

    fixed: set[int] = set()
    for pair in graph.pairs:
        tensors = _coded(graph, pair)
        for index in tensors:
            root(index)
        if pair.kind in _ONE_SCALE:
            same = [i for i in tensors if code_of(graph, i) == code_of(graph, tensors[-1])]
            for index in same:
                parent[root(index)] = root(same[0])
        if pair.kind in _FIXED_OUTPUT:
            fixed.update(int(i) for i in pair.integer_operator.outputs)
    fixed |= _ends(graph) | {i for i in parent if is_constant(graph.integer_model, i)}
    held = {root(index) for index in fixed if index in parent}
    groups: dict[int, list[int]] = {}
    for index in sorted(parent):
        groups.setdefault(root(index), []).append(index)
    return tuple(tuple(group) for top, group in groups.items() if top not in held)


def _coded(graph: PairedGraph, pair: Pair) -> list[int]:
    """The int8 inputs (without kernels) and outputs of an operator, outputs last."""
    inputs = [int(i) for i in pair.integer_operator.inputs if i >= 0]
    if pair.is_weighted:
        inputs = inputs[:1]
    indices = [*inputs, *(int(i) for i in pair.integer_operator.outputs)]
    return [i for i in indices if graph.integer_tensor(i).type == _INT8]


def _ends(graph: PairedGraph) -> set[int]:
    """Tensors that a QUANTIZE or DEQUANTIZE joins with an end of the graph, and these ends."""
    main = graph.integer_model.subgraphs[0]
    ends = {int(main.inputs[0]), int(main.outputs[0])}
    for kind, operator in zip(operators(graph.integer_model), main.operators):
        joined = {int(operator.inputs[0]), int(operator.outputs[0])}
        if kind in RESCALING and joined & ends:
            ends |= joined
    return ends


@dataclass(frozen=True)
class Kernel:
    """An int8 kernel in the file's layout and its scales, ``(1,)`` or ``(output channels,)``."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def dequantized(self, axis: int) -> NDArray[np.float32]:
        """The real kernel."""
        scale: NDArray[np.float32] = along(self.scale, axis, self.codes.ndim)
        return self.codes.astype(np.float32) * scale


def rounded_kernel(kernel: NDArray[np.float32], axis: int, *, per_channel: bool) -> Kernel:
    """Each weight to the nearest of 255 multiples of the scale, the largest one being 127 of it."""
    others = tuple(i for i in range(kernel.ndim) if i != axis) if per_channel else None
    largest = np.atleast_1d(np.abs(kernel).max(axis=others))
    scale = np.maximum(largest / LARGEST_WEIGHT, _SMALLEST_SCALE).astype(np.float32)
    codes = np.rint(kernel / along(scale, axis, kernel.ndim))
    return Kernel(np.clip(codes, -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8), scale)


def set_kernel(graph: PairedGraph, pair: Pair, kernel: Kernel) -> None:
    """Write an operator's kernel, in place."""
    tensor = graph.integer_tensor(int(pair.integer_operator.inputs[1]))
    quantization = tensor.quantization
    quantization.scale = kernel.scale
    quantization.zeroPoint = np.zeros(len(kernel.scale), np.int64)
    quantization.quantizedDimension = pair.kernel_axis if len(kernel.scale) > 1 else 0
    quantization.min = quantization.max = None
    set_data(graph.integer_model, tensor, kernel.codes)


def set_bias(
    graph: PairedGraph, pair: Pair, kernel: Kernel, bias: NDArray[np.floating[Any]]
) -> None:
    """Write an operator's bias as int32 for the input code and kernel in place."""
    index = bias_index(pair.integer_operator)
    if index < 0:
        raise PairingError(f"{pair.layer} has no bias: quantize with the converter")
    tensor = graph.integer_tensor(index)
    entry = code_of(graph, int(pair.integer_operator.inputs[0])).scale
    scale = (np.float64(entry) * kernel.scale.astype(np.float64)).astype(np.float32)
    codes = np.rint(np.asarray(bias, np.float64) / scale)
    tensor.quantization.scale = scale
    tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
    tensor.quantization.quantizedDimension = 0
    tensor.quantization.min = tensor.quantization.max = None
    set_data(
        graph.integer_model, tensor, np.clip(codes, -_LARGEST_BIAS, _LARGEST_BIAS).astype(np.int32)
    )


def set_data(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    """Put values into a tensor's buffer; one that tensors share is left to the others."""
    users = sum(other.buffer == tensor.buffer for other in model.subgraphs[0].tensors)
    if users > 1:
        tensor.buffer = len(model.buffers)
        model.buffers.append(type(model.buffers[0])())
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
