"""Runs one model file: ``python -m smidgen.export.formats.parity_worker FORMAT FILE PIXELS BATCH
OUT``.

``FORMAT`` is tflite or onnx; ``PIXELS`` a ``.npy`` of ``(N, H, W, 3) uint8``; ``OUT`` becomes a
``.npy`` of ``(N, classes) float32`` probabilities, what is stored decoded by the file's own scale.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def scores_of(
    model_format: str, model: bytes, pixels: NDArray[np.uint8], batch: int
) -> NDArray[np.float32]:
    """Probabilities ``(N, classes) float32``, ``batch`` rows at a time (the last may be fewer)."""
    run = _onnx(model) if model_format == "onnx" else _tflite(model, batch)
    parts = [run(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]
    return np.concatenate(parts).astype(np.float32)


def _onnx(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def _tflite(model: bytes, batch: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if batch != entry["shape"][0]:
        raise ValueError(f"the file takes batches of {entry['shape'][0]}, got {batch}")
    interpreter.allocate_tensors()
    scale, zero_point = end["quantization"]

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(entry["index"], pixels)
        interpreter.invoke()
        stored = interpreter.get_tensor(end["index"])
        real = (stored.astype(np.float32) - zero_point) * scale if scale else stored
        return np.array(real, np.float32)

    return run


def main(arguments: list[str]) -> int:
    """Exit status: 0 done; a traceback's last line says what was wrong."""
    model_format, file, pixels, batch, out = arguments
    np.save(out, scores_of(model_format, Path(file).read_bytes(), np.load(pixels), int(batch)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
