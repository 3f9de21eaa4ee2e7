"""ai-edge-quantizer's static int8 of a TFLite file. Runs in an environment of its own."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found]

from smidgen.bench.quantization.task import Task, work


def quantize(task: Task) -> bytes:
    """The recipe ``static_wi8_ai8`` with its defaults: per-channel weights, min-max."""
    signatures = Interpreter(task.tflite).get_signature_list()
    (key,) = signatures
    (name,) = signatures[key]["inputs"]
    made = quantizer.Quantizer(task.tflite, recipe.static_wi8_ai8())
    found = made.calibrate({key: [{name: image} for image in task.calibration()]})
    target = Path(task.target)
    made.quantize(found).export_model(str(target), overwrite=True)
    return target.read_bytes()


if __name__ == "__main__":
    work(quantize, ("ai-edge-quantizer", "ai-edge-litert"))
