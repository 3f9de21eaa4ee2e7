"""docs/runtime.md and the wheel's README: their commands and their Python are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

REPO = Path(__file__).resolve().parents[2]
PAGES = ("docs/runtime.md", "runtime/README.md")
PROGRAMS = {"smidgen-runtime": "smidgen.runtime", "smidgen": "smidgen.cli"}
FAKE_CV2 = """
import numpy as np
class VideoCapture:
    def __init__(self, source):
        self.left = 3
    def isOpened(self):
        return True
    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((16, 24, 3), 200, np.uint8)
    def release(self):
        pass
"""


def command_lines(text: str) -> list[str]:
    """The indented lines; what is marked ``# not run: why`` is left out."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    programs = tuple(f"{program} " for program in PROGRAMS)
    return [line for line in lines if line.startswith(programs) and "# not run: " not in line]


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def folder(make_bundle: Callable[..., Path], photo_png: bytes, tmp_path: Path) -> Path:
    """What the pages have: Bundles, pictures and a video (OpenCV is a stand-in)."""
    for module in ("ai_edge_litert", "onnxruntime"):
        pytest.importorskip(module)
    place = tmp_path / "docs"
    for name in ("photo.jpg", "more/1.jpg", "more/2.jpg", "photos/a.jpg", "clip.avi"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(photo_png)
    make_bundle("tflite", "int8").rename(place / "flowers-int8.tflite")
    make_bundle("onnx").rename(place / "flowers.onnx")
    (place / "cv2.py").write_text(FAKE_CV2)
    return place


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A command line of a page, as a shell would run it, with this Python's modules."""
    line = re.split(r"\s+#", line)[0]
    if line.startswith("smidgen-runtime doctor"):
        line += " --backend litert" if ".onnx" not in line else " --backend onnxruntime"
    program, _, arguments = line.partition(" ")
    shell = f"{shlex.quote(sys.executable)} -m {PROGRAMS[program]} {arguments}"
    environment = {**os.environ, "PYTHONPATH": str(folder), "SMIDGEN_CACHE": str(folder)}
    return subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, check=False, cwd=folder,
        env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page: str, folder: Path) -> None:
    lines = command_lines((REPO / page).read_text(encoding="utf-8"))
    assert len(lines) >= 4
    for line in lines:
        done = run(folder, line)
        no_engine_for_one = "doctor" in line and done.returncode == 1  # one engine was tried
        assert done.returncode == 0 or no_engine_for_one, f"{line}: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert done.stdout or line.startswith("smidgen sign")


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(page: str, folder: Path) -> None:
    text = (REPO / page).read_text(encoding="utf-8")
    for line in command_lines(text):
        if line.startswith("smidgen sign"):
            assert run(folder, line).returncode == 0
    environment = {**os.environ, "PYTHONPATH": str(folder), "SMIDGEN_CACHE": str(folder)}
    blocks = python_blocks(text)
    assert blocks
    for number, block in enumerate(blocks):
        script = folder / f"block{number}.py"
        script.write_text(block)
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, check=False,
            cwd=folder, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}{done.stderr}"
        assert "red" in done.stdout or "grün" in done.stdout


def test_a_command_that_is_wrong_would_be_found(folder: Path) -> None:
    assert run(folder, "smidgen-runtime classify flowers-int8.tflite absent.jpg").returncode == 1
    assert run(folder, "smidgen-runtime clasify flowers-int8.tflite").returncode == 2
