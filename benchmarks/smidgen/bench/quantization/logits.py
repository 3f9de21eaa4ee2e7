"""The answers and logits of an int8 file, in the runtime that would run it.

    python -m smidgen.bench.quantization.logits FILE PIXELS.npy SCALE ZERO_POINT OUT.npz

The answers are those of the file as it is. Where it ends in softmax, the logits are what enters it:
they are read from a copy that is cut there (TFLite), or that gives them as one more output (ONNX).
A process of its own, since a damaged file can end an interpreter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.bench.quantization.task import PixelScale

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From pixels ``(1, H, W, 3) uint8`` to real numbers ``(classes,) float32``."""


def answer(
    file: Path, pixels: NDArray[np.uint8], scale: PixelScale
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes ``(N,) int64`` and logits ``(N, classes) float32`` for ``(N, H, W, 3) uint8``."""
    data = file.read_bytes()
    readers = _tflite(data, scale) if file.suffix == ".tflite" else _onnx(data, scale)
    scores, logits = (np.stack([run(image[None]) for image in pixels]) for run in readers)
    return scores.argmax(axis=1).astype(np.int64), logits


def _tflite(data: bytes, scale: PixelScale) -> tuple[Run, Run]:
    return _interpreter(data, scale), _interpreter(before_softmax(data), scale)


def before_softmax(data: bytes) -> bytes:
    """A ``.tflite`` file whose output is what enters its softmax; the same without one."""
    from smidgen.export.formats import tflite_file

    model = tflite_file.read_model(data)
    names = tflite_file.operators(model)
    if "SOFTMAX" not in names:
        return data
    graph = model.subgraphs[0]
    place = names.index("SOFTMAX")
    graph.outputs = [graph.operators[place].inputs[0]]
    graph.operators = graph.operators[:place]
    model.signatureDefs = []
    return tflite_file.write_model(model)


def _interpreter(data: bytes, scale: PixelScale) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(entry["index"], _entering(pixels, scale, entry))
        interpreter.invoke()
        raw = np.asarray(interpreter.get_tensor(end["index"])[0])
        if raw.dtype == np.float32:
            return raw
        step, zero_point = end["quantization"]
        return (raw.astype(np.float32) - np.float32(zero_point)) * np.float32(step)

    return run


def _entering(pixels: NDArray[np.uint8], scale: PixelScale, entry: dict[str, Any]) -> NDArray[Any]:
    """The input tensor: pixels as they are, decoded, or decoded and quantized to int8."""
    if entry["dtype"] == np.uint8:
        return pixels
    decoded = scale.decode(pixels)
    if entry["dtype"] == np.float32:
        return decoded
    step, zero_point = entry["quantization"]
    nearest = np.round(decoded / np.float32(step)) + np.float32(zero_point)
    return nearest.clip(-128, 127).astype(np.int8)


def _onnx(data: bytes, scale: PixelScale) -> tuple[Run, Run]:
    import onnx

    model = onnx.load_from_string(data)
    ends = [node for node in model.graph.node if node.op_type == "Softmax"]
    name = model.graph.output[0].name
    if not ends:
        return (_session(data, name, scale),) * 2
    exposed = ends[-1].input[0]
    model.graph.output.append(onnx.ValueInfoProto(name=exposed))
    return _session(data, name, scale), _session(model.SerializeToString(), exposed, scale)


def _session(data: bytes, output: str, scale: PixelScale) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    takes_pixels = entry.type == "tensor(uint8)"

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        planes: Any = pixels
        if not takes_pixels:
            planes = np.ascontiguousarray(scale.decode(pixels).transpose(0, 3, 1, 2))
        return np.asarray(session.run([output], {entry.name: planes})[0][0], np.float32)

    return run


def main() -> None:
    """Write ``answers`` and ``logits`` into the last argument's file."""
    file, pixels, scale, zero_point, out = sys.argv[1:]
    decoding = PixelScale(float(scale), int(zero_point))
    answers, logits = answer(Path(file), np.load(pixels), decoding)
    np.savez(out, answers=answers, logits=logits)


if __name__ == "__main__":
    main()
