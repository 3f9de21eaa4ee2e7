"""ONNX int8: ONNX Runtime's static quantization of the channels-first core.

QDQ format, per-channel symmetric int8 weights, unsigned activations with min-max ranges: on x86
with VNNI that is the fastest combination (u8s8), and other calibrators hold all activations in
memory for no measurable gain. The input's code is given, not calibrated, so a pixel enters as it
is.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from smidgen.export.calibration import Calibration
from smidgen.export.errors import ConversionError
from smidgen.export.formats.to_onnx import IR_VERSION, PLANES_NAME, finish, with_quantized_entry
from smidgen.export.graphs.deploy_graph import PixelCode
from smidgen.export.tensorflow_backend import captured_output
from smidgen.runtime.errors import SmidgenError

_QUANTIZED_OPERATORS = [
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "MaxPool",
    "Mul",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Squeeze",
]
"""All that EfficientNets are made of but Softmax, whose output stays float32."""


def quantize_core(
    core: Any, code: PixelCode, calibration: Calibration, advance: Callable[[int], None]
) -> bytes:
    """The int8 ``.onnx``: ``uint8`` pixels in, float32 probabilities out.

    Args:
        core: from ``to_onnx_core``.
        code: how a pixel encodes the core's input.
        calibration: the images that set the activation ranges; read one at a time.
        advance: called with 1 for each calibration image.

    Raises:
        ConversionError: the quantizer failed, or a pixel does not enter the graph as it is.
    """
    reader = _Reader(calibration, code, advance)
    with tempfile.TemporaryDirectory(prefix="smidgen-onnx-") as folder, captured_output():
        source, prepared = Path(folder, "core.onnx"), Path(folder, "prepared.onnx")
        target = Path(folder, "int8.onnx")
        source.write_bytes(core.SerializeToString())
        try:
            logging.disable(logging.WARNING)
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            _quantize(prepared, target, reader, code)
        except SmidgenError:
            raise
        except Exception as error:  # the quantizer raises whatever it meets
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConversionError(
                f"ONNX Runtime's quantizer failed ({reason[:300]}): export tflite, or float32"
            ) from error
        finally:
            logging.disable(logging.NOTSET)
        quantized = onnx.load(target)
    quantized.ir_version = IR_VERSION
    return finish(with_quantized_entry(_without_input_pair(quantized, code), code))


def _quantize(source: Path, target: Path, reader: _Reader, code: PixelCode) -> None:
    quantize_static(
        source,
        target,
        reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=_QUANTIZED_OPERATORS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": False,
            "WeightSymmetric": True,
            "TensorQuantOverrides": {
                PLANES_NAME: [
                    {
                        "scale": np.asarray(code.scale, np.float32),
                        "zero_point": np.asarray(code.zero_point, np.uint8),
                    }
                ]
            },
        },
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the calibration images one by one; nothing is held."""

    def __init__(
        self, calibration: Calibration, code: PixelCode, advance: Callable[[int], None]
    ) -> None:
        self._pixels: Iterator[NDArray[np.uint8]] = calibration.pixels()
        self._code, self._advance = code, advance

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        pixels = next(self._pixels, None)
        if pixels is None:
            return None
        self._advance(1)
        return {PLANES_NAME: self._code.decode(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))}


def _without_input_pair(model: Any, code: PixelCode) -> Any:
    """The graph without the QuantizeLinear and DequantizeLinear at its input, in place.

    Raises:
        ConversionError: the pair has another code than a pixel has, or the input is used elsewhere.
    """
    graph = model.graph
    takers = [node for node in graph.node if PLANES_NAME in node.input]
    if [node.op_type for node in takers] != ["QuantizeLinear"]:
        raise ConversionError(
            f"the quantized graph's input goes to {[node.op_type for node in takers]}, expected "
            "one QuantizeLinear: report this with the recipe"
        )
    quantize = takers[0]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scale, zero_point = (values[name] for name in quantize.input[1:3])
    is_uint8 = zero_point.dtype == np.uint8
    if float(scale) != np.float32(code.scale) or int(zero_point) != code.zero_point or not is_uint8:
        raise ConversionError(
            f"the quantized graph takes pixels with scale {float(scale)} and zero point "
            f"{int(zero_point)}, expected {code}: report this with the recipe"
        )
    pairs = [node for node in graph.node if quantize.output[0] in node.input]
    for dequantize in pairs:
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in dequantize.output:
                    node.input[index] = PLANES_NAME
        graph.node.remove(dequantize)
    graph.node.remove(quantize)
    used = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in used:
            graph.initializer.remove(tensor)
    return model
