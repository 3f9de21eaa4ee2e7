"""smidgen's own int8 files, with the default ``[quantization]`` settings, without manifest.

Methods: ``tflite``; ``onnx`` (the integers of the same ``.tflite`` file in ONNX).
"""

from __future__ import annotations

from smidgen.bench.quantization.material import float_model
from smidgen.bench.quantization.task import Task, work
from smidgen.export.calibration import Calibration
from smidgen.export.formats.integer_onnx import to_onnx_int8
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.quantization.quantizer import quantize as quantize_int8
from smidgen.export.recipe import QuantizationRecipe


def quantize(task: Task) -> bytes:
    """The int8 file's bytes by ``task.method``."""
    source = float_model(task.subject)
    calibration = Calibration(source.calibration_pool, source.preprocessing)
    folded = fold_batch_norms(source.load()).model
    made = quantize_int8(
        folded, source.normalization, calibration, QuantizationRecipe(), lambda _: None
    )
    return to_onnx_int8(made.data) if task.method == "onnx" else made.data


if __name__ == "__main__":
    work(quantize, ("smidgen", "tensorflow"))
