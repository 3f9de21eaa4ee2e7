"""onnxruntime's ``quantize_static``, after its own pre-processing.

Methods: ``default`` (QDQ, per-tensor, signed activations, min-max) and ``u8s8`` (per-channel
weights, unsigned activations, min-max).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from smidgen.bench.quantization.task import Task, work

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "u8s8": {
        "per_channel": True,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
    },
}


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds the calibration images one by one."""

    def __init__(self, task: Task, name: str) -> None:
        self._images, self._name = task.calibration(channels_first=True), name

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next image under the input's name; None after the last."""
        image = next(self._images, None)
        return None if image is None else {self._name: image}


def quantize(task: Task) -> bytes:
    """The int8 file's bytes by ``task.method``."""
    with tempfile.TemporaryDirectory(prefix="smidgen-ort-") as folder:
        prepared, target = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quant_pre_process(task.onnx, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, target, _Images(task, "planes"), **SETTINGS[task.method])
        return target.read_bytes()


if __name__ == "__main__":
    work(quantize, ("onnxruntime",))
