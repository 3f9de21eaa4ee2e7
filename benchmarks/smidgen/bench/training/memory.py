"""Does memory grow with the data set? The peak of ``smidgen train`` with N images and with 10 N.

Small pictures of noise are made for it, each unlike the others, and one epoch of EfficientNet-Lite0
at 32 px is trained on them, in a process of its own with no decoded images left from before. The
peak is that of resident memory, as the kernel counted it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.facts import DeviceFacts

GROWTH = 10
_CLASSES = 4
_SIDE = 64
_LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(0 if status == 0 else 1)
"""
_FLAGS = ("--image-size=32", "--head-epochs=0", "--full-epochs=1", "--weights=none")


@dataclass(frozen=True)
class Peak:
    """The most memory that a training had resident."""

    images: int
    peak_bytes: int


def measure(
    arguments: argparse.Namespace,
    facts: DeviceFacts,  # noqa: ARG001 (all measurements are called alike)
) -> tuple[str, dict[str, Any], list[str]]:
    """Both trainings, as text, as raw data, and what failed. Raises ContenderFailed."""
    peaks = [peak(count) for count in (arguments.images, GROWTH * arguments.images)]
    return as_markdown(peaks), {"peaks": [dataclasses.asdict(one) for one in peaks]}, []


def peak(images: int) -> Peak:
    """Train on ``images`` pictures. Raises ContenderFailed."""
    with tempfile.TemporaryDirectory(prefix="smidgen-memory-") as folder:
        place = Path(folder)
        draw(place / "images", images)
        command = [sys.executable, "-m", "smidgen.cli", "train", str(place / "images"), *_FLAGS]
        command += ["--out", str(place / "run")]
        environment = {**os.environ, "SMIDGEN_CACHE": str(place / "cache")}
        return Peak(images, peak_bytes(command, environment))


def peak_bytes(command: list[str], environment: dict[str, str]) -> int:
    """Run ``command``; the peak of its own resident memory. Raises ContenderFailed.

    Linux begins the count of a new process with the peak of the one that starts it; so a small
    process of its own does that here.
    """
    with tempfile.TemporaryFile() as said:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command]
        done = subprocess.run(
            launcher, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said,
            env=environment, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise ContenderFailed(f"smidgen train: {lines[-1].strip()}")
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def draw(folder: Path, images: int) -> None:
    """``images`` JPEG files of smooth noise in class folders below ``folder``."""
    from PIL import Image

    for number in range(images):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        path = folder / f"{number % _CLASSES}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((_SIDE, _SIDE)).save(path)


def as_markdown(peaks: list[Peak]) -> str:
    """One table."""
    lines = ["| images | peak resident memory, MiB |", "|---:|---:|"]
    lines += [f"| {one.images:,} | {one.peak_bytes / 2**20:,.0f} |" for one in peaks]
    return "\n".join(lines) + "\n"
