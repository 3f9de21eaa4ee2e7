"""What a quantizer is asked for, and its side of the protocol, in whatever environment it runs.

A worker is a process: ``python -m MODULE TASK``, with a ``Task`` as JSON. It writes the int8 file
and prints one JSON line, ``{"seconds": 8.1, "versions": {...}}``, where the time is that from the
float model in memory or on disk to the int8 file, imports apart. Needs numpy and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PixelScale:
    """The float files take ``(pixel - zero_point) * scale``."""

    scale: float
    zero_point: int

    def decode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``float32`` of the same shape as ``pixels``."""
        return (pixels.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True)
class Subject:
    """A pretrained network, and the folder of images that it is calibrated and judged on.

    In the order of their content hashes, block number ``fold`` of ``calibration_images`` images is
    for calibration; all others are judged.
    """

    network: str
    images: str
    calibration_images: int
    fold: int = 0


@dataclass(frozen=True)
class Task:
    """The float network in three forms, the calibration images, and what to make of them.

    ``keras``, ``tflite``, ``onnx``: files of one function, from decoded pixels (float32; ``(1, H,
    W, 3)``, in ONNX ``(N, 3, H, W)``) to logits (float32), BatchNorm folded. ``pixels``: a ``.npy``
    file, ``(N, H, W, 3) uint8, 0..255``. ``method``: what the worker's docstring names. ``target``:
    the file to write. ``subject``: for smidgen itself, which starts from its own float model.
    """

    subject: Subject
    keras: str
    tflite: str
    onnx: str
    pixels: str
    scale: PixelScale
    method: str = ""
    target: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The inverse of ``to_json``."""
        values = json.loads(text)
        values["subject"], values["scale"] = (
            Subject(**values["subject"]),
            PixelScale(**values["scale"]),
        )
        return cls(**values)

    def calibration(self, *, channels_first: bool = False) -> Iterator[NDArray[np.float32]]:
        """The decoded calibration images one by one, ``(1, H, W, 3)`` or ``(1, 3, H, W)``."""
        for pixels in np.load(self.pixels, mmap_mode="r"):
            decoded = self.scale.decode(pixels)[np.newaxis]
            yield np.ascontiguousarray(decoded.transpose(0, 3, 1, 2)) if channels_first else decoded


def work(quantize: Callable[[Task], bytes], packages: tuple[str, ...]) -> None:
    """Do the task in the first argument: time ``quantize``, write its file, print the answer.

    Whatever libraries print goes to standard error. ``packages``: whose versions are told.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = Task.from_json(sys.argv[1])
    began = time.perf_counter()
    data = quantize(task)
    seconds = time.perf_counter() - began
    Path(task.target).write_bytes(data)
    versions = {package: version(package) for package in packages}
    print(json.dumps({"seconds": seconds, "versions": versions}), file=answers, flush=True)
