"""Float model to TFLite: float32 and full int8, each checked after the converter is done.

Both take ``(1, H, W, 3) uint8`` RGB pixels. The float32 file gives ``float32`` probabilities; the
int8 file ``uint8`` ones with scale 1/256 and zero point 0: ``uint8`` at both ends is what every
TFLite client accepts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from smidgen.export.calibration import Calibration
from smidgen.export.errors import ConversionError
from smidgen.export.formats import tflite_file
from smidgen.export.graphs.deploy_graph import (
    INPUT_NAME,
    OUTPUT_NAME,
    PixelCode,
    pixel_code,
    pixel_graph,
    quantizable_graph,
)
from smidgen.export.source import ChannelNormalization
from smidgen.export.tensorflow_backend import captured_output, tf
from smidgen.runtime.errors import SmidgenError

_SCORE_SCALE = 1 / 256
_SCALE_TOLERANCE = 1e-6
"""Relative; float32 rounding of the converter's division."""


def to_tflite_float32(model: Any, normalization: ChannelNormalization) -> bytes:
    """A float32 ``.tflite`` of ``model`` (normalised floats to logits), pixels to probabilities.

    Raises:
        ConversionError: the converter failed, or its file lacks weights or has other ends.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(pixel_graph(model, normalization))
    converted = tflite_file.read_model(run_converter(converter))
    _check_size(converted, model.count_params(), bytes_per_weight=4)
    tflite_file.rename_ends(converted, INPUT_NAME, OUTPUT_NAME)
    tflite_file.drop_metadata_entry(converted, "CONVERSION_METADATA")
    _check_end("input", tflite_file.input_tensor(converted), schema.TensorType.UINT8)
    _check_end("output", tflite_file.output_tensor(converted), schema.TensorType.FLOAT32)
    return tflite_file.write_model(converted)


def to_tflite_int8(
    model: Any,
    normalization: ChannelNormalization,
    calibration: Calibration,
    advance: Callable[[int], None],
) -> bytes:
    """A full-integer ``.tflite``: per-channel int8 weights, int8 activations, ``uint8`` ends.

    Args:
        model: normalised floats to logits, BatchNorm folded.
        normalization: of the float model.
        calibration: the images that set the activation ranges (min-max).
        advance: called with 1 for each calibration image.

    Raises:
        ConversionError: the converter failed, or a pixel does not enter the graph as it is.
    """
    code = pixel_code(normalization)

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        for pixels in calibration.pixels():
            yield [code.decode(pixels)]
            advance(1)

    graph = quantizable_graph(model, normalization, batch=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(graph)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    converted = tflite_file.read_model(run_converter(converter))
    _check_size(converted, model.count_params(), bytes_per_weight=1)
    check_int8(converted, code)
    tflite_file.rename_ends(converted, INPUT_NAME, OUTPUT_NAME)
    tflite_file.drop_metadata_entry(converted, "CONVERSION_METADATA")
    return tflite_file.write_model(converted)


def check_int8(model: Any, code: PixelCode) -> None:
    """Check that pixels enter by a zero-point shift alone and that nothing computes in float.

    The converter puts a QUANTIZE from uint8 to int8 at the input. It is a pure shift by 128, no
    arithmetic, exactly where both its ends have the same scale and zero points 128 apart.

    Raises:
        ConversionError: another input code, another output scale, or a float tensor inside.
    """
    entry, score = tflite_file.input_tensor(model), tflite_file.output_tensor(model)
    _check_end("input", entry, schema.TensorType.UINT8)
    _check_end("output", score, schema.TensorType.UINT8)
    graph = model.subgraphs[0]
    takers = [operator for operator in graph.operators if graph.inputs[0] in operator.inputs]
    inner = graph.tensors[takers[0].outputs[0]]
    got, got_inner, got_score = _code(entry), _code(inner), _code(score)
    is_shift = got_inner == PixelCode(got.scale, got.zero_point - 128)
    if not _is_near(got, code) or len(takers) != 1 or not is_shift:
        raise ConversionError(
            f"the int8 file takes pixels as {got} and shifts them to {got_inner}, expected {code} "
            "and a pure zero-point shift: report this with the recipe"
        )
    if not _is_near(got_score, PixelCode(_SCORE_SCALE, 0)):
        raise ConversionError(
            f"the int8 file gives probabilities as {got_score}, expected scale 1/256 and zero "
            "point 0: report this with the recipe"
        )
    floats = [tensor.name for tensor in graph.tensors if tensor.type == schema.TensorType.FLOAT32]
    if floats:
        raise ConversionError(
            f"{len(floats)} tensors of the int8 file stayed float32 ({floats[0].decode()} first): "
            "this network has an operation without an int8 form; export float32"
        )


def run_converter(converter: Any) -> bytes:
    """The file of a ``TFLiteConverter``, its chatter kept quiet. Raises ConversionError."""
    with captured_output() as chatter:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return bytes(converter.convert())
        except SmidgenError:
            raise
        except Exception as error:  # the converter raises whatever its C++ passes on
            chatter.seek(0)
            last = (chatter.read().strip().splitlines() or ["no output"])[-1]
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConversionError(
                f"the TFLite converter failed ({reason[:300]}; its last line: {last[:200]}): "
                "check the layers of the network, or export onnx"
            ) from error


def _check_size(model: Any, weights: int, *, bytes_per_weight: int) -> None:
    """A converter given an untracked function "succeeds" with a file that lacks the weights."""
    stored = sum(0 if buffer.data is None else len(buffer.data) for buffer in model.buffers)
    expected = weights * bytes_per_weight
    if not 0.9 * expected <= stored <= 2 * expected + 65536:
        raise ConversionError(
            f"the TFLite file holds {stored} bytes of data for {weights} weights of "
            f"{bytes_per_weight} bytes: the converter lost or repeated some; report this"
        )


def _check_end(name: str, tensor: Any, kind: int) -> None:
    if tensor.type != kind or tensor.shape[0] != 1:
        raise ConversionError(
            f"the TFLite file's {name} has type {tensor.type} and shape {list(tensor.shape)}: "
            f"expected type {kind} and batch 1; report this with the recipe"
        )


def _code(tensor: Any) -> PixelCode:
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return PixelCode(0.0, 0)
    return PixelCode(float(quantization.scale[0]), int(quantization.zeroPoint[0]))


def _is_near(got: PixelCode, expected: PixelCode) -> bool:
    is_scale = abs(got.scale - expected.scale) <= _SCALE_TOLERANCE * expected.scale
    return is_scale and got.zero_point == expected.zero_point
