"""Scores of a model file by another program: ``openvino|tflite-runtime|tflite-micro MODEL PIXELS``.

PIXELS: ``(N, H, W, 3) uint8`` as ``.npy``. Prints JSON: a row of scores for each picture, as the
output stores them. Runs in the environment that has the program; imports nothing of ours.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def openvino(path, pixels):
    import openvino

    precise = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 otherwise, where the CPU has it
    compiled = openvino.Core().compile_model(path, "CPU", precise)
    return [np.asarray(compiled([row])[0])[0] for row in pixels]


def tflite_runtime(path, pixels):
    from tflite_runtime.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for row in pixels:
        interpreter.set_tensor(entry["index"], row)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(end["index"])[0].copy())
    return answers


def tflite_micro(path, pixels):
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(path, arena_size=1 << 20)
    answers = []
    for row in pixels:
        interpreter.set_input(row, 0)
        interpreter.invoke()
        answers.append(np.array(interpreter.get_output(0))[0])
    return answers


PROGRAMS = {
    "openvino": openvino,
    "tflite-runtime": tflite_runtime,
    "tflite-micro": tflite_micro,
}

if __name__ == "__main__":
    program, model, file = sys.argv[1:]
    pictures = np.load(file)[:, None]
    print(json.dumps([row.tolist() for row in PROGRAMS[program](model, pictures)]))
