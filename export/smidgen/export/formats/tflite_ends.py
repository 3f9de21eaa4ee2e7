"""What a TFLite file takes and gives: uint8, int8 or float32, without touching what is between.

An int8 file computes in int8 and has a QUANTIZE at each end, from and to uint8. Other ends:

- ``uint8``: pixels 0..255; probabilities in steps of 1/256. What every TFLite client accepts.
- ``int8``: pixels minus 128; probabilities with zero point -128. No operators at the ends: for
  firmware that fills the tensor itself.
- ``float32``: pixels 0..255 as floats (whole numbers: a CAST to uint8 cuts off the rest), and
  float32 probabilities, still in steps of 1/256. Normalisation stays inside.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from smidgen.export.errors import ConversionError
from smidgen.export.formats import tflite_file
from smidgen.export.graphs.deploy_graph import INPUT_NAME, OUTPUT_NAME, PixelCode
from smidgen.runtime.manifest import TensorSpec

Ends = Literal["uint8", "int8", "float32"]


def with_ends(int8_tflite: bytes, ends: Ends) -> bytes:
    """The int8 file with other ends; ``uint8`` gives the file as it is.

    Args:
        int8_tflite: with ``uint8`` at both ends, as ``to_tflite_int8`` makes it.
        ends: the same for input and output.

    Raises:
        ConversionError: the file's ends are not a QUANTIZE from and to uint8.
    """
    model = tflite_file.read_model(int8_tflite)
    _check_uint8(model)
    if ends == "uint8":
        return int8_tflite
    if ends == "int8":
        _drop_ends(model)
    else:
        _float_ends(model)
    tflite_file.rename_ends(model, INPUT_NAME, OUTPUT_NAME)
    return tflite_file.write_model(model)


def end_specs(tflite: bytes) -> tuple[TensorSpec, TensorSpec]:
    """Input and output of a ``.tflite`` of ours, as its manifest should say them.

    Raises:
        ConversionError: an end that is not uint8, int8 or float32.
    """
    model = tflite_file.read_model(tflite)
    image, scores = tflite_file.input_tensor(model), tflite_file.output_tensor(model)
    shapes = [tuple(int(size) for size in tensor.shape) for tensor in (image, scores)]
    kinds = [_end(tensor) for tensor in (image, scores)]
    code = PixelCode(1.0, 0) if kinds[1] == "float32" else _code_of(scores)
    top = 1.0 if kinds[1] == "float32" else 255 * code.scale
    return (
        TensorSpec(
            INPUT_NAME,
            shapes[0],
            kinds[0],
            "NHWC",
            low=0.0,
            high=255.0,
            zero_point=-128 if kinds[0] == "int8" else 0,
        ),
        TensorSpec(
            OUTPUT_NAME,
            shapes[1],
            kinds[1],
            "NC",
            0.0,
            top,
            scale=code.scale,
            zero_point=code.zero_point,
        ),
    )


def with_pixel_input(tflite: bytes, code: PixelCode) -> bytes:
    """A file that takes decoded float32 pixels, made to take ``uint8`` ones by a DEQUANTIZE.

    Raises:
        ConversionError: the file does not take float32.
    """
    model = tflite_file.read_model(tflite)
    graph, image = model.subgraphs[0], tflite_file.input_tensor(model)
    if image.type != schema.TensorType.FLOAT32:
        raise ConversionError(
            f"the TFLite file takes {_end(image)}, expected float32: report this with the recipe"
        )
    pixels = _tensor(INPUT_NAME, schema.TensorType.UINT8, image.shape)
    pixels.quantization = schema.QuantizationParametersT()
    pixels.quantization.scale = np.asarray([code.scale], np.float32)
    pixels.quantization.zeroPoint = np.asarray([code.zero_point], np.int64)
    image.name = b"decoded"
    index = _add_tensor(graph, pixels)
    graph.operators.insert(0, _operator(model, "DEQUANTIZE", 1, (index, int(graph.inputs[0]))))
    _set_ends(model, index, int(graph.outputs[0]))
    tflite_file.rename_ends(model, INPUT_NAME, OUTPUT_NAME)
    return tflite_file.write_model(model)


def _code_of(tensor: Any) -> PixelCode:
    """Scale and zero point of a ``TensorT`` that has one of each. Raises ConversionError."""
    code = tensor.quantization
    if code is None or code.scale is None or len(code.scale) != 1:
        raise ConversionError("an integer end of the TFLite file has no scale: convert again")
    return PixelCode(float(code.scale[0]), int(code.zeroPoint[0]))


def _check_uint8(model: Any) -> None:
    kinds = tflite_file.operators(model)
    ends = [_end(tflite_file.input_tensor(model)), _end(tflite_file.output_tensor(model))]
    if ends != ["uint8", "uint8"] or (kinds[0], kinds[-1]) != ("QUANTIZE", "QUANTIZE"):
        raise ConversionError(
            f"the TFLite file goes from {ends[0]} by {kinds[0]} to {ends[1]} by {kinds[-1]}: "
            "expected uint8 ends behind QUANTIZE; give the int8 file as export makes it"
        )


def _end(tensor: Any) -> Ends:
    names: dict[int, Ends] = {
        schema.TensorType.UINT8: "uint8",
        schema.TensorType.INT8: "int8",
        schema.TensorType.FLOAT32: "float32",
    }
    if tensor.type not in names:
        raise ConversionError(
            f"an end of the TFLite file has type {tflite_file.type_name(tensor.type)}: expected "
            f"{', '.join(names.values())}; convert again"
        )
    return names[tensor.type]


def _drop_ends(model: Any) -> None:
    graph = model.subgraphs[0]
    first, last = graph.operators[0], graph.operators[-1]
    graph.operators = graph.operators[1:-1]
    _set_ends(model, int(first.outputs[0]), int(last.inputs[0]))


def _float_ends(model: Any) -> None:
    graph = model.subgraphs[0]
    pixels, last = tflite_file.input_tensor(model), graph.operators[-1]
    scores = tflite_file.output_tensor(model)
    pixels.name, scores.type, scores.quantization = b"bytes", schema.TensorType.FLOAT32, None
    floats = _add_tensor(graph, _tensor(INPUT_NAME, schema.TensorType.FLOAT32, pixels.shape))
    cast = _operator(model, "CAST", 1, (floats, int(graph.inputs[0])))
    real = _operator(model, "DEQUANTIZE", 2, (int(last.inputs[0]), int(graph.outputs[0])))
    graph.operators = [cast, *graph.operators[:-1], real]
    _set_ends(model, floats, int(graph.outputs[0]))


def _set_ends(model: Any, entry: int, end: int) -> None:
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = np.asarray([entry], np.int32), np.asarray([end], np.int32)
    for signature in model.signatureDefs or []:
        signature.inputs[0].tensorIndex, signature.outputs[0].tensorIndex = entry, end


def _tensor(name: str, kind: int, shape: Any) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name.encode(), kind, shape, 0
    return tensor


def _add_tensor(graph: Any, tensor: Any) -> int:
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, kind: str, version: int, ends: tuple[int, int]) -> Any:
    """An operator of one input and one output, with a code of its own in the model."""
    code, step = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = version
    step.opcodeIndex = len(model.operatorCodes)
    model.operatorCodes.append(code)
    step.inputs, step.outputs = (np.asarray([index], np.int32) for index in ends)
    options = "DequantizeOptions" if kind == "DEQUANTIZE" else "CastOptions"
    step.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    step.builtinOptions = getattr(schema, f"{options}T")()
    if kind == "CAST":
        step.builtinOptions.inDataType = schema.TensorType.FLOAT32
        step.builtinOptions.outDataType = schema.TensorType.UINT8
    return step
