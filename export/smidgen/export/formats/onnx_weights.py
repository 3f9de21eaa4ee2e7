"""Smaller weights in a float32 ONNX file: float16 or int8, made float again by the runtime.

The arithmetic stays float32, so a CPU without float16 instructions is as fast as before. Schemes
that would be slower than float32 in ONNX Runtime are refused.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from smidgen.export.errors import ConversionError
from smidgen.export.formats.tflite_weights import as_float16, quantize_channels
from smidgen.export.formats.to_onnx import finish
from smidgen.runtime.manifest import Scheme

_REFUSED: dict[str, str] = {
    "dynamic": "ONNX Runtime quantizes the activations of convolutions at each run, which is about "
    "6 times slower than float32: export int8, or weights-int8 for the size alone",
    "int16x8": "ONNX Runtime has no kernels for int16 activations with int8 weights: export int8, "
    "or int16x8 as tflite",
}


def to_onnx_scheme(float32_onnx: bytes, scheme: Scheme) -> bytes:
    """The file in another scheme that needs no calibration: float32, float16 or weights-int8.

    Raises:
        ConversionError: int8 (which is written from the TFLite file), or a scheme that ONNX Runtime
            has no fast kernels for.
    """
    if scheme == "float32":
        return float32_onnx
    if scheme == "float16":
        return with_float16_weights(float32_onnx)
    if scheme == "weights-int8":
        return with_int8_weights(float32_onnx)
    reason = _REFUSED.get(scheme, "it is written from the int8 TFLite file: use to_onnx_int8")
    raise ConversionError(f"no {scheme} .onnx: {reason}")


def with_float16_weights(float32_onnx: bytes) -> bytes:
    """The file with float16 kernels behind Cast: half the size. Raises ConversionError."""
    model = onnx.load_from_string(float32_onnx)
    nodes: list[NodeProto] = []
    for name, (weights, _) in _kernels(model).items():
        small = numpy_helper.from_array(as_float16(weights), f"{name}_float16")
        _replace(model, name, [small])
        nodes.append(
            helper.make_node("Cast", [small.name], [name], f"{name}_real", to=TensorProto.FLOAT)
        )
    return _finished(model, nodes)


def with_int8_weights(float32_onnx: bytes) -> bytes:
    """The file with int8 kernels, symmetric, one scale for each output channel.

    Behind each kernel are Cast and Mul, which ONNX Runtime computes once when it loads the file. A
    DequantizeLinear there is computed at every run: 2.5 times the latency of float32 for Lite0. The
    integers are those of the TFLite weights-int8 file of the same network.

    Raises:
        ConversionError: no kernels in the file, or a weight that is not finite.
    """
    model = onnx.load_from_string(float32_onnx)
    nodes: list[NodeProto] = []
    for name, (weights, axis) in _kernels(model).items():
        stored, scales = quantize_channels(weights, axis)
        spread = [-1 if place == axis else 1 for place in range(weights.ndim)]
        small = numpy_helper.from_array(stored, f"{name}_int8")
        scale = numpy_helper.from_array(scales.reshape(spread), f"{name}_scale")
        _replace(model, name, [small, scale])
        whole = f"{name}_whole"
        nodes += [
            helper.make_node("Cast", [small.name], [whole], whole, to=TensorProto.FLOAT),
            helper.make_node("Mul", [whole, scale.name], [name], f"{name}_real"),
        ]
    return _finished(model, nodes)


def _kernels(model: onnx.ModelProto) -> dict[str, tuple[NDArray[np.float32], int]]:
    """The float32 constants that are kernels, by name, with the axis of the output channels."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, tuple[NDArray[np.float32], int]] = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in constants:
            continue
        tensor = constants[node.input[1]]
        if tensor.data_type == TensorProto.FLOAT:
            is_turned = any(item.name == "transB" and item.i for item in node.attribute)
            axis = 0 if node.op_type == "Conv" or is_turned else len(tensor.dims) - 1
            found[tensor.name] = (numpy_helper.to_array(tensor), axis)
    if not found:
        raise ConversionError(
            "the ONNX file has no float32 kernels: give the float32 file of the network"
        )
    return found


def _replace(model: onnx.ModelProto, name: str, parts: list[TensorProto]) -> None:
    initializers = model.graph.initializer
    for place, tensor in enumerate(initializers):
        if tensor.name == name:
            del initializers[place]
            break
    initializers.extend(parts)


def _finished(model: onnx.ModelProto, nodes: list[NodeProto]) -> bytes:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return finish(model)
