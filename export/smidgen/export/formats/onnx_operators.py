"""TFLite operators as ONNX nodes between DequantizeLinear and QuantizeLinear.

One function for each family, and ``EMITTERS`` names them all. What each operator computes is the
TFLite quantization specification's (ai.google.dev/edge/litert/models/quantization_spec); its
paddings are written out, as TF's "SAME" puts the odd one behind, which ONNX's SAME_UPPER with a
free batch does too but some runtimes do not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smidgen.export.errors import ConversionError
from smidgen.export.formats.onnx_values import OnnxValues
from smidgen.export.formats.tflite_graph import Operator

_CHANNELS_FIRST = {0: 0, 1: 2, 2: 3, 3: 1}
_SAME = 0
_SPATIAL = (1, 2)


def emit(values: OnnxValues, step: Operator) -> None:
    """Add the nodes of one operator. Raises ConversionError for one that has no form here."""
    if step.kind not in EMITTERS:
        raise ConversionError(
            f"operator {step.number} of the TFLite file is {step.kind}, which has no ONNX form "
            f"here (known: {', '.join(sorted(EMITTERS))}): export tflite, or float32"
        )
    EMITTERS[step.kind](values, step)


def _convolution(values: OnnxValues, step: Operator) -> None:
    source, around = values.unpadded(step.inputs[0])
    kernel = values.constant_tensor(step.inputs[1])
    is_depthwise = step.kind == "DEPTHWISE_CONV_2D"
    _refuse_hybrid(values, step)
    order = (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2)
    channels = values.tensor(source).shape[3]
    size = kernel.shape[1], kernel.shape[2]
    rates = step.option("dilationHFactor", 1), step.option("dilationWFactor", 1)
    reach = tuple((side - 1) * rate + 1 for side, rate in zip(size, rates, strict=True))
    inputs = [_kernel_input(values, source, step), values.weights(step.inputs[1], order)]
    real = values.node(
        "Conv",
        inputs + _bias(values, step),
        f"{step.name}",
        dilations=list(rates),
        group=channels if is_depthwise else channels // kernel.shape[3],
        kernel_shape=list(size),
        pads=_pads(values, step, reach, around),
        strides=_strides(step),
    )
    values.put(step.outputs[0], real, step.activation)


def _fully_connected(values: OnnxValues, step: Operator) -> None:
    source, output = step.inputs[0], step.outputs[0]
    ranks = len(values.tensor(source).shape), len(values.tensor(output).shape)
    if ranks != (2, 2):
        raise ConversionError(
            f"{step.name} goes from rank {ranks[0]} to {ranks[1]}, expected 2 and 2: put a "
            "pooling before the dense layer, or export tflite"
        )
    _refuse_hybrid(values, step)
    inputs = [_kernel_input(values, source, step), values.weights(step.inputs[1], (1, 0))]
    real = values.node("Gemm", inputs + _bias(values, step), step.name)
    values.put(output, real, step.activation)


def _arithmetic(kind: str) -> Callable[[OnnxValues, Operator], None]:
    def emit_arithmetic(values: OnnxValues, step: Operator) -> None:
        rank = len(values.tensor(step.outputs[0]).shape)
        inputs = [values.operand(index, rank) for index in step.inputs]
        values.put(step.outputs[0], values.node(kind, inputs, step.name), step.activation)

    return emit_arithmetic


def _mean(values: OnnxValues, step: Operator) -> None:
    source, output = step.inputs[0], step.outputs[0]
    shape = values.tensor(source).shape
    axes = np.atleast_1d(values.constant_tensor(step.inputs[1]).data)  # type: ignore[arg-type]
    if len(shape) != 4 or tuple(sorted(int(axis) % 4 for axis in axes)) != _SPATIAL:
        raise ConversionError(
            f"{step.name} averages the axes {axes.tolist()} of {list(shape)}, expected height and "
            "width: export tflite, or float32"
        )
    real = values.node("GlobalAveragePool", [values.real(source)], step.name)
    if len(values.tensor(output).shape) == 2:
        real = values.node("Flatten", [_as_stored(values, step, real)], f"{step.name}_flat", axis=1)
    values.put(output, real)


def _as_stored(values: OnnxValues, step: Operator, real: str) -> str:
    """``real`` after the rounding of the output, so that a pooling alone is between two codes."""
    output = step.outputs[0]
    if not values.tensor(output).is_integer:
        return real
    kind, scale, zero_point = values.stored_code(output)
    code = [
        values.constant(f"t{output}_scale", np.asarray(scale, np.float32)),
        values.constant(f"t{output}_zero_point", np.asarray(zero_point, kind)),
    ]
    stored = values.node("QuantizeLinear", [real, *code], f"{step.name}_stored")
    return values.node("DequantizeLinear", [stored, *code], f"{step.name}_real")


def _pool(kind: str) -> Callable[[OnnxValues, Operator], None]:
    def emit_pool(values: OnnxValues, step: Operator) -> None:
        source, around = step.inputs[0], (0, 0, 0, 0)
        if kind == "MaxPool":
            source, around = _unpadded_for_max(values, source)
        size = step.option("filterHeight", 1), step.option("filterWidth", 1)
        real = values.node(
            kind,
            [values.real(source)],
            step.name,
            kernel_shape=list(size),
            pads=_pads(values, step, size, around),
            strides=_strides(step),
        )
        values.put(step.outputs[0], real, step.activation)

    return emit_pool


def _unpadded_for_max(values: OnnxValues, index: int) -> tuple[int, tuple[int, int, int, int]]:
    """The padding is part of the pooling where zero is the least that the tensor can hold."""
    source, around = values.unpadded(index)
    tensor = values.tensor(source)
    if tensor.is_integer and tensor.code[1] == np.iinfo(tensor.kind.lower()).min:
        return source, around
    return index, (0, 0, 0, 0)


def _pad(values: OnnxValues, step: Operator) -> None:
    pads = values.constant_tensor(step.inputs[1]).data
    is_spatial = pads is not None and pads.shape == (4, 2) and not pads[[0, 3]].any()
    value = 0.0
    if len(step.inputs) == 3:
        constant = values.constant_tensor(step.inputs[2])
        assert constant.data is not None
        value = float(np.ravel(constant.data)[0])
        if constant.is_integer:
            value -= constant.code[1]
    if not is_spatial or value != 0:
        raise ConversionError(
            f"{step.name} pads {None if pads is None else pads.tolist()} with {value}, expected "
            "zeros around height and width: export tflite, or float32"
        )
    assert pads is not None
    sides = (int(pads[1, 0]), int(pads[2, 0]), int(pads[1, 1]), int(pads[2, 1]))
    values.pad(step.outputs[0], step.inputs[0], sides)


def _concatenation(values: OnnxValues, step: Operator) -> None:
    rank = len(values.tensor(step.outputs[0]).shape)
    axis = step.option("axis", 0) % rank
    inputs = [values.operand(index, rank) for index in step.inputs]
    real = values.node(
        "Concat", inputs, step.name, axis=_CHANNELS_FIRST[axis] if rank == 4 else axis
    )
    values.put(step.outputs[0], real, step.activation)


def _reshape(values: OnnxValues, step: Operator) -> None:
    source, output = step.inputs[0], step.outputs[0]
    before, after = values.tensor(source).shape, values.tensor(output).shape
    if before == after:
        values.rename(output, source)
        return
    channels = [shape[-1] for shape in (before, after)]
    flat = [shape[-1] == int(np.prod(shape)) for shape in (before, after)]
    if not all(flat) or channels[0] != channels[1] or {len(before), len(after)} - {2, 4}:
        raise ConversionError(
            f"{step.name} goes from {list(before)} to {list(after)}, which would mix the axes of "
            "a channels-first graph: put a pooling before it, or export tflite"
        )
    shape = np.asarray([-1, channels[0], *([1, 1] if len(after) == 4 else [])], np.int64)
    inputs = [values.real(source), values.constant(f"t{output}_shape", shape)]
    values.put(output, values.node("Reshape", inputs, step.name))


def _relu(values: OnnxValues, step: Operator) -> None:
    """As LeakyRelu with slope 0, which ONNX Runtime has an integer kernel for (a table)."""
    output = step.outputs[0]
    if not values.tensor(output).is_integer:
        values.put(output, values.real(step.inputs[0]), step.kind)
        return
    real = values.node("LeakyRelu", [values.real(step.inputs[0])], step.name, alpha=0.0)
    values.put(output, real, "NONE" if step.kind == "RELU" else step.kind)


def _leaky_relu(values: OnnxValues, step: Operator) -> None:
    alpha = float(step.option("alpha", 0.0))
    real = values.node("LeakyRelu", [values.real(step.inputs[0])], step.name, alpha=alpha)
    values.put(step.outputs[0], real)


def _logistic(values: OnnxValues, step: Operator) -> None:
    real = values.node("Sigmoid", [values.real(step.inputs[0])], step.name)
    values.put(step.outputs[0], real)


def _hard_swish(values: OnnxValues, step: Operator) -> None:
    """``x * HardSigmoid(x)``, as the operator HardSwish is newer than our opset."""
    source = values.real(step.inputs[0])
    gate = values.node("HardSigmoid", [source], f"{step.name}_gate", alpha=1 / 6, beta=0.5)
    values.put(step.outputs[0], values.node("Mul", [source, gate], step.name))


def _softmax(values: OnnxValues, step: Operator) -> None:
    beta = float(step.option("beta", 1.0))
    if beta != 1:
        raise ConversionError(f"{step.name} has beta {beta}, expected 1: export tflite")
    axis = 1 if len(values.tensor(step.inputs[0]).shape) == 4 else -1
    real = values.node("Softmax", [values.real(step.inputs[0])], step.name, axis=axis)
    values.put(step.outputs[0], real)


def _cast(values: OnnxValues, step: Operator) -> None:
    source, output = step.inputs[0], step.outputs[0]
    if values.tensor(output).kind != "FLOAT32":
        kind = values.tensor(output).kind
        raise ConversionError(f"{step.name} casts to {kind}, expected FLOAT32: export tflite")
    values.put(output, values.node("Cast", [values.stored(source)], step.name, to=1))


def _convert(values: OnnxValues, step: Operator) -> None:
    values.convert(step)


def _refuse_hybrid(values: OnnxValues, step: Operator) -> None:
    if (
        values.tensor(step.inputs[1]).kind == "INT8"
        and not values.tensor(step.inputs[0]).is_integer
    ):
        raise ConversionError(
            f"{step.name} has int8 weights and float inputs (dynamic range), which is slower than "
            "float in ONNX Runtime: export int8, weights-int8 or float32"
        )


def _kernel_input(values: OnnxValues, source: int, step: Operator) -> str:
    is_float = not values.constant_tensor(step.inputs[1]).is_integer
    return values.real_for_float_kernel(source) if is_float else values.real(source)


def _bias(values: OnnxValues, step: Operator) -> list[str]:
    has_bias = len(step.inputs) > 2 and step.inputs[2] >= 0
    return [values.weights(step.inputs[2], (0,))] if has_bias else []


def _strides(step: Operator) -> list[int]:
    return [step.option("strideH", 1), step.option("strideW", 1)]


def _pads(
    values: OnnxValues, step: Operator, reach: tuple[int, ...], around: tuple[int, int, int, int]
) -> list[int]:
    """Zeros at top, left, bottom, right: ``around``, and what TF's padding adds."""
    pads = list(around)
    if step.option("padding", _SAME) != _SAME:
        return pads
    shape = values.tensor(step.inputs[0]).shape
    for place, (side, window, stride) in enumerate(
        zip(shape[1:3], reach, _strides(step), strict=True)
    ):
        total = max((-(-side // stride) - 1) * stride + window - side, 0)
        pads[place] += total // 2
        pads[place + 2] += total - total // 2
    return pads


EMITTERS: dict[str, Callable[[OnnxValues, Operator], None]] = {
    "ADD": _arithmetic("Add"),
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DEQUANTIZE": _convert,
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _logistic,
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _mean,
    "MUL": _arithmetic("Mul"),
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _convert,
    "RELU": _relu,
    "RELU6": _relu,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SUB": _arithmetic("Sub"),
}
"""Every TFLite operator that has an ONNX form here."""
