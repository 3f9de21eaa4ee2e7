"""Smaller weights in a float32 TFLite file: float16 or int8, made float again when it is loaded.

The converter has no option for int8 weights with float arithmetic, so both kinds are written into
the finished float32 file: each kernel becomes a float16 or int8 constant with a DEQUANTIZE behind
it. TFLite's kernel computes that once, at the first run, and the XNNPACK delegate when it takes the
graph; so a file is as fast as the float32 one and needs as much memory when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from smidgen.export.errors import ConversionError
from smidgen.export.formats import tflite_file

CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Operators with kernels, and the axis of the kernel's output channels."""

_FLOAT16_VERSION, _PER_CHANNEL_VERSION = 3, 5
_SINCE = {_FLOAT16_VERSION: "1.15.0", _PER_CHANNEL_VERSION: "2.7.0"}
"""DEQUANTIZE's versions, and the first TFLite that has them (TensorFlow's runtime_version.cc)."""

_Shrink = Callable[[Any, NDArray[np.float32], int], NDArray[Any]]
"""Sets type and scales of a tensor, and gives what it stores for weights with a channel axis."""

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def with_float16_weights(float32_tflite: bytes) -> bytes:
    """The file with float16 kernels: half the size, rounding of 1/2048 relative.

    Raises:
        ConversionError: no kernels in the file, or a weight beyond float16's 65504.
    """
    return _with_weights(float32_tflite, _float16, _FLOAT16_VERSION)


def with_int8_weights(float32_tflite: bytes) -> bytes:
    """The file with int8 kernels, symmetric, one scale for each output channel: a quarter the size.

    Raises:
        ConversionError: no kernels in the file, or a weight that is not finite.
    """
    return _with_weights(float32_tflite, _int8, _PER_CHANNEL_VERSION)


def quantize_channels(
    weights: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 in -127..127, and the scales ``(channels,) float32`` along ``axis``.

    A channel of zeros gets scale 1. Raises ConversionError for weights that are not finite.
    """
    if not np.isfinite(weights).all():
        raise ConversionError("the network has weights that are not finite: train again")
    others = tuple(place for place in range(weights.ndim) if place != axis)
    largest = np.abs(weights).max(axis=others)
    scales = np.where(largest > 0, largest / np.float32(127), 1).astype(np.float32)
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    spread = scales.reshape([-1 if place == axis else 1 for place in range(weights.ndim)])
    return np.clip(np.rint(weights / spread), -127, 127).astype(np.int8), scales


def as_float16(weights: NDArray[np.float32]) -> NDArray[np.float16]:
    """Rounded to float16. Raises ConversionError for a weight beyond its range."""
    largest = float(np.abs(weights).max(initial=0))
    if not largest <= _LARGEST_FLOAT16:
        raise ConversionError(
            f"the network has a weight of {largest:g}, float16 holds up to {_LARGEST_FLOAT16:g}: "
            "export float32 or weights-int8"
        )
    return weights.astype(np.float16)


def _float16(tensor: Any, weights: NDArray[np.float32], _axis: int) -> NDArray[Any]:
    tensor.type = schema.TensorType.FLOAT16
    return as_float16(weights)


def _int8(tensor: Any, weights: NDArray[np.float32], axis: int) -> NDArray[Any]:
    stored, scales = quantize_channels(weights, axis)
    tensor.type = schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = scales
    tensor.quantization.zeroPoint = np.zeros(len(scales), np.int64)
    tensor.quantization.quantizedDimension = axis
    return stored


def _with_weights(data: bytes, shrink: _Shrink, version: int) -> bytes:
    model = tflite_file.read_model(data)
    graph, kinds = model.subgraphs[0], tflite_file.operators(model)
    opcode = len(model.operatorCodes)
    steps: list[Any] = []
    done: set[int] = set()
    for kind, step in zip(kinds, graph.operators, strict=True):
        index = int(step.inputs[1]) if kind in CHANNEL_AXIS else -1
        if index not in done and _is_float_constant(model, index):
            done.add(index)
            source = _shrunk_copy(model, index, shrink, CHANNEL_AXIS[kind])
            steps.append(_dequantize(opcode, source, index))
        steps.append(step)
    if not done:
        raise ConversionError(
            "the TFLite file has no float32 kernels: give the float32 file of the network"
        )
    graph.operators = steps
    _add_code(model, version)
    return tflite_file.write_model(model)


def _is_float_constant(model: Any, index: int) -> bool:
    if index < 0:
        return False
    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    return tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data) > 0


def _shrunk_copy(model: Any, index: int, shrink: _Shrink, axis: int) -> int:
    """Moves the constant ``index`` to a smaller tensor, whose index is returned."""
    tensors, kernel = model.subgraphs[0].tensors, model.subgraphs[0].tensors[index]
    raw = np.asarray(model.buffers[kernel.buffer].data, np.uint8).tobytes()
    small = schema.TensorT()
    small.shape, small.name = kernel.shape, kernel.name + b"_small"
    stored = shrink(small, np.frombuffer(raw, np.float32).reshape(kernel.shape), axis)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(stored).tobytes(), np.uint8)
    model.buffers[kernel.buffer] = buffer
    small.buffer, kernel.buffer = kernel.buffer, 0
    tensors.append(small)
    return len(tensors) - 1


def _dequantize(opcode: int, source: int, target: int) -> Any:
    step = schema.OperatorT()
    step.opcodeIndex = opcode
    step.inputs, step.outputs = np.asarray([source], np.int32), np.asarray([target], np.int32)
    step.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    step.builtinOptions = schema.DequantizeOptionsT()
    return step


def _add_code(model: Any, version: int) -> None:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = version
    model.operatorCodes.append(code)
    known = tflite_file.minimum_runtime(model) or "0"
    oldest = max(known, _SINCE[version], key=lambda text: tuple(map(int, text.split("."))))
    padded = oldest.encode().ljust(16, b"\0")
    tflite_file.set_metadata_entry(model, "min_runtime_version", padded)
