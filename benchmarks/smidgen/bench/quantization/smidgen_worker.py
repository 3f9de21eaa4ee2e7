"""smidgen's own int8 files, as ``smidgen export`` writes them, but for the manifest.

Methods: ``tflite`` and ``onnx``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from smidgen.bench.quantization.material import float_model
from smidgen.bench.quantization.task import Task, work
from smidgen.export.formats.conversion import Converter
from smidgen.export.progress import ConsoleProgress
from smidgen.export.recipe import ExportPlan, ExportRecipe


def quantize(task: Task) -> bytes:
    """The int8 file's bytes by ``task.method``."""
    source = float_model(task.subject)
    plan = ExportPlan(ExportRecipe(calibration_images=task.subject.calibration_images))
    with tempfile.TemporaryDirectory(prefix="smidgen-passes-") as passes:
        converter = Converter(source, plan, Path(passes), ConsoleProgress(), {})
        return converter.convert("onnx" if task.method == "onnx" else "tflite", "int8").data


if __name__ == "__main__":
    work(quantize, ("smidgen", "tensorflow", "onnxruntime"))
