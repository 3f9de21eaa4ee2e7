"""Post-training schemes of TFLite besides float32 and full int8.

All take ``(1, H, W, 3) uint8`` pixels and give ``(1, classes) float32`` probabilities.

================  =======================================================================
float16           half the size; as fast as float32 (weights are made float32 when loaded)
weights-int8      a quarter of the size; as fast as float32; better than int8 where
                  activations quantize badly
dynamic           a quarter of the size; activations quantized as they come: slower than
                  float32 on x86 (measured: 17 ms against 9.7 ms), and old runtimes refuse
                  its FULLY_CONNECTED version 12
int16x8           int16 activations: near float accuracy, but XNNPACK has no kernels for it:
                  about 50 times slower than float32 on x86; for accelerators that have them
================  =======================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from smidgen.export.calibration import Calibration
from smidgen.export.errors import ConversionError
from smidgen.export.formats import tflite_file
from smidgen.export.formats.tflite_ends import end_specs, with_pixel_input
from smidgen.export.formats.tflite_weights import with_float16_weights, with_int8_weights
from smidgen.export.formats.to_tflite import run_converter, to_tflite_float32
from smidgen.export.graphs.deploy_graph import (
    INPUT_NAME,
    OUTPUT_NAME,
    pixel_code,
    pixel_graph,
    quantizable_graph,
)
from smidgen.export.source import ChannelNormalization
from smidgen.export.tensorflow_backend import tf
from smidgen.runtime.manifest import Scheme

NOTES: dict[Scheme, str] = {
    "dynamic": "dynamic: slower than float32 on most CPUs, and tflite-runtime 2.14 refuses it; "
    "weights-int8 has the same size and the speed of float32",
    "int16x8": "int16x8: about 50 times slower than float32 where XNNPACK runs it (no kernels), "
    "and larger than int8; for hardware that has int16 kernels",
}
"""What to tell a user who asks for a scheme that costs more than it seems."""


def to_tflite_float16(model: Any, normalization: ChannelNormalization) -> bytes:
    """float16 kernels, float32 arithmetic. Raises ConversionError."""
    return with_float16_weights(to_tflite_float32(model, normalization))


def to_tflite_weights_int8(model: Any, normalization: ChannelNormalization) -> bytes:
    """int8 kernels with a scale for each output channel, float32 arithmetic.

    Raises:
        ConversionError: the converter failed, or a weight is not finite.
    """
    return with_int8_weights(to_tflite_float32(model, normalization))


def to_tflite_dynamic(model: Any, normalization: ChannelNormalization) -> bytes:
    """int8 kernels, activations quantized at each run ("dynamic range"). Raises ConversionError."""
    converter = tf.lite.TFLiteConverter.from_keras_model(pixel_graph(model, normalization))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return _finished(tflite_file.read_model(run_converter(converter)), "dynamic")


def to_tflite_int16x8(
    model: Any,
    normalization: ChannelNormalization,
    calibration: Calibration,
    advance: Callable[[int], None],
) -> bytes:
    """int8 kernels, int16 activations with min-max ranges of ``calibration``.

    The converter gives float32 or int16 ends; ``uint8`` pixels are decoded by a DEQUANTIZE before.

    Args:
        model: normalised floats to logits, BatchNorm folded.
        normalization: of the float model.
        calibration: the images that set the activation ranges.
        advance: called with 1 for each calibration image.

    Raises:
        ConversionError: the converter failed or left operators without int16 kernels.
    """
    code, passes = pixel_code(normalization), count()

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        is_first = next(passes) == 0  # the converter reads all images twice for this scheme
        for pixels in calibration.pixels():
            yield [code.decode(pixels)]
            if is_first:
                advance(1)

    graph = quantizable_graph(model, normalization, batch=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(graph)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    converted = with_pixel_input(run_converter(converter), code)
    return _finished(tflite_file.read_model(converted), "int16x8")


def _finished(model: Any, scheme: Scheme) -> bytes:
    tflite_file.rename_ends(model, INPUT_NAME, OUTPUT_NAME)
    tflite_file.drop_metadata_entry(model, "CONVERSION_METADATA")
    graph = model.subgraphs[0]
    kernels = [
        graph.tensors[step.inputs[1]].type
        for kind, step in zip(tflite_file.operators(model), graph.operators, strict=True)
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]
    if schema.TensorType.INT8 not in kernels:
        raise ConversionError(
            f"the {scheme} file has no int8 kernels: the network is too small for it (the "
            "converter leaves kernels of less than 1,024 weights as they are); export float32"
        )
    data = tflite_file.write_model(model)
    ends = [spec.dtype for spec in end_specs(data)]
    if ends != ["uint8", "float32"]:
        raise ConversionError(
            f"the {scheme} file goes from {ends[0]} to {ends[1]}, expected uint8 to float32: "
            "report this with the recipe"
        )
    return data
