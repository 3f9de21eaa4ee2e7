"""NNCF's post-training quantization of an ONNX file. Runs in an environment of its own.

Methods: ``default`` (preset "performance": symmetric activations) and ``mixed`` (the preset that
its documentation names for asymmetric activations).
"""

from __future__ import annotations

import nncf  # type: ignore[import-not-found]
import onnx

from smidgen.bench.quantization.task import Task, work

PRESETS = {"default": None, "mixed": nncf.QuantizationPreset.MIXED}


def quantize(task: Task) -> bytes:
    """The int8 file's bytes by ``task.method``."""
    images = list(task.calibration(channels_first=True))
    dataset = nncf.Dataset(images, lambda image: {"planes": image})
    made = nncf.quantize(onnx.load(task.onnx), dataset, preset=PRESETS[task.method])
    return bytes(made.SerializeToString())


if __name__ == "__main__":
    work(quantize, ("nncf", "onnxruntime"))
