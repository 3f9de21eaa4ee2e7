"""Runs model files on pixels in this process, and reads LiteRT's tensors."""

from __future__ import annotations

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def run_tflite(data: bytes, pixels: np.ndarray) -> np.ndarray:
    """Real numbers of the output, ``(N, classes)``; what is stored is decoded."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for row in pixels:
        interpreter.set_tensor(entry["index"], row[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(end["index"])[0].copy())
    scale, zero_point = end["quantization"]
    scores = np.stack(rows)
    return (scores.astype(np.float32) - zero_point) * scale if scale else scores


def run_onnx(data: bytes, pixels: np.ndarray) -> np.ndarray:
    """Whole batch at once."""
    return session(data).run(None, {"image": pixels})[0]


def session(data: bytes, optimized: str = "") -> onnxruntime.InferenceSession:
    """A quiet session on one thread that may write its optimized graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def all_tensors(data: bytes, pixels: np.ndarray) -> Interpreter:
    """LiteRT's built-in kernels after one run that kept every tensor."""
    interpreter = Interpreter(
        model_content=data,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    return interpreter
