"""What a programmer writes who has LiteRT, numpy and Pillow: decode, resize, invoke, argmax.

A script, run by the contest in a process: MODEL PHOTO RUNS CROP_FRACTION FILTER. Crop and
filter are those of the Bundle's manifest: the side of the centre crop as a share of the shorter
side of the photo, and ``bilinear`` or ``bicubic``.
"""

# ruff: noqa: E402  (the clock starts before the imports: they are part of a start)
import time

STARTED_NS = time.perf_counter_ns()

import json
import sys
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


class ByHand:
    """The model, ready: call it with the path of a photo to get the number of its label."""

    def __init__(self, model: str, crop_fraction: float, resample: str) -> None:
        self._interpreter: Any = Interpreter(model_path=model, num_threads=1)
        self._interpreter.allocate_tensors()
        given = self._interpreter.get_input_details()[0]
        self._input, self._dtype = given["index"], given["dtype"]
        self._height, self._width = (int(length) for length in given["shape"][1:3])
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._crop_fraction = crop_fraction
        self._filter = Image.Resampling[resample.upper()]

    def __call__(self, photo: str) -> int:
        image = Image.open(photo).convert("RGB")
        side = self._crop_fraction * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        small = image.resize((self._width, self._height), self._filter, box)
        pixels = np.asarray(small)[np.newaxis].astype(self._dtype)
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        return int(self._interpreter.get_tensor(self._output)[0].argmax())


def main() -> None:
    model, photo, runs, crop_fraction, resample = sys.argv[1:6]
    by_hand = ByHand(model, float(crop_fraction), resample)
    index = by_hand(photo)
    print(json.dumps({"answer": index, "first_ns": time.perf_counter_ns() - STARTED_NS}))
    sys.stdout.flush()
    times = []
    for _ in range(int(runs)):
        start = time.perf_counter_ns()
        by_hand(photo)
        times.append(time.perf_counter_ns() - start)
    print(json.dumps({"runs_ns": {"by hand": times}, "peak_rss_bytes": peak_rss_bytes()}))


def peak_rss_bytes() -> int:
    """The most physical memory that this process has held (Linux; 0 elsewhere)."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0


if __name__ == "__main__":
    main()
