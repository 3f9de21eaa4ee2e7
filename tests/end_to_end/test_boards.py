"""The newcomer's page, command by command, on emulated boards: 64-bit and 32-bit ARM.

The answers are compared with those of this machine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reduced_line import REPO, Line

from boards import BOARDS, FOLDER, HOME, Board, ensure, login, obstacle
from installer import Steps
from smidgen.runtime import Classifier
from smidgen.runtime.schema import as_mapping

pytestmark = pytest.mark.slow

PAGE = REPO / "docs" / "raspberry-pi.md"
BLOCK = re.compile(r"<!-- tried: ([a-z0-9 ]+) -->\n```sh\n(.*?)```", re.DOTALL)
PHOTOS = 6
SCORE_TOLERANCE = {"aarch64": 0.1, "armhf": 0.2}
"""Kernels of other processors round sums differently, and sixty layers pass that on: 1 to 2 steps
of 1/256 for a well trained network; 0.08 (LiteRT) and 0.13 (tflite-runtime) for this hasty one."""
ENGINES = {"aarch64": "litert", "armhf": "tflite"}


@dataclass(frozen=True)
class Visit:
    """What the commands on a board printed, by the name of each part."""

    board: Board
    parts: dict[str, list[str]]

    def records(self, part: str) -> list[dict[str, Any]]:
        """The JSON lines of one part."""
        return [json.loads(line) for line in self.parts[part] if line.startswith("{")]


def blocks() -> dict[str, list[str]]:
    """The page's commands by the board that tries them."""
    found = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    return {name: text.strip().splitlines() for name, text in found}


def photos(line: Line) -> list[Path]:
    """One digit of each of some classes."""
    return [line.digits / str(digit) / "0007.png" for digit in range(PHOTOS)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime's wheel, as `make wheels` builds it."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, str(REPO / "runtime")], check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module", params=sorted(BOARDS))
def visit(
    request: pytest.FixtureRequest,
    wheel: Path,
    line: Line,
    tmp_path_factory: pytest.TempPathFactory,
) -> Visit:
    """All commands on one board, in one login."""
    if obstacle():
        pytest.skip(obstacle())
    board = BOARDS[request.param]
    ensure(board, Steps(FOLDER / f"{board.name}.log"))
    home = tmp_path_factory.mktemp(board.name)
    shutil.copytree(board.folder / "wheels", home / "wheels")
    shutil.copy(wheel, home / "wheels")
    for ending in ("int8.tflite", "int8.onnx"):
        shutil.copy(line.bundle(ending), home / f"flowers-{ending}")
    for number, path in enumerate(photos(line)):
        shutil.copy(path, home / f"{number}.png")
    Image.open(home / "0.png").convert("RGB").save(home / "photo.jpg", quality=95)
    script = _script(board)
    done = subprocess.run(
        login(board, home), input=script.encode(), capture_output=True, timeout=900, check=False
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    parts: dict[str, list[str]] = {}
    for text in said.splitlines():
        if text.startswith("== "):
            parts[text[3:]] = []
        elif parts:
            parts[list(parts)[-1]].append(text)
    return Visit(board, parts)


def _script(board: Board) -> str:
    """The page's commands for this board, and more of them as JSON."""
    page, run = blocks(), "smidgen-runtime"
    images = " ".join(f"{number}.png" for number in range(PHOTOS))
    lines = ["echo '== page'", *page[board.name], "echo '== tflite'"]
    lines += [f"{run} classify flowers-int8.tflite {images} --json --top 10"]
    lines += ["echo '== selftest'", f"{run} selftest flowers-int8.tflite --json"]
    if board.name == "aarch64":
        lines += ["echo '== page onnx'", *page["aarch64 onnx"], "echo '== onnx'"]
        lines += [f"{run} classify flowers-int8.onnx {images} --json --top 10"]
        lines += ["echo '== selftest onnx'", f"{run} selftest flowers-int8.onnx --json"]
    return "\n".join([*lines, "echo '== doctor'", f"{run} doctor flowers-int8.tflite", ""])


def test_a_label_comes_in_five_commands(visit: Visit, line: Line) -> None:
    assert len(blocks()[visit.board.name]) == 5
    with Classifier(line.bundle("int8.tflite")) as classifier:
        answer = classifier.classify(photos(line)[0])
    assert visit.parts["page"][-1].startswith(f"photo.jpg: {answer.label} ")


def test_labels_are_those_of_x86_64_and_int8_scores_but_for_rounding(
    visit: Visit, line: Line
) -> None:
    there = visit.records("tflite")
    assert len(there) == PHOTOS
    assert {one["engine"] for one in there if "engine" in one} <= {ENGINES[visit.board.name]}
    _compare(there, line.bundle("int8.tflite"), photos(line), SCORE_TOLERANCE[visit.board.name])


def test_onnx_runtime_gives_the_labels_and_scores_of_x86_64(visit: Visit, line: Line) -> None:
    if visit.board.name != "aarch64":
        assert "onnx" not in visit.parts
        return
    _compare(visit.records("onnx"), line.bundle("int8.onnx"), photos(line), 0.02)
    (report,) = visit.records("selftest onnx")
    assert report["passed"] is True


def test_the_selftest_passes_and_doctor_fills_one_screen(visit: Visit) -> None:
    (report,) = visit.records("selftest")
    assert report["passed"] is True
    assert report["engine"] == ENGINES[visit.board.name]
    doctor = visit.parts["doctor"]
    assert 8 <= len(doctor) <= 24
    bits = "64 bit" if visit.board.name == "aarch64" else "32 bit"
    assert any(bits in text for text in doctor)
    assert any("0.1.0" in text for text in doctor)


def _compare(there: list[dict[str, Any]], bundle: Path, images: list[Path], limit: float) -> None:
    """The answers of a board beside ours: the same labels, the model's scores within ``limit``."""
    with Classifier(bundle) as classifier:
        ours = [
            json.loads(json.dumps(as_mapping(classifier.classify(path, top=10)))) for path in images
        ]
        temperature = classifier.manifest.temperature
    assert [one["label"] for one in there] == [one["label"] for one in ours]
    theirs, mine = ([_own_scores(one, temperature) for one in side] for side in (there, ours))
    apart = [abs(a[label] - b[label]) for a, b in zip(theirs, mine, strict=True) for label in b]
    assert max(apart) <= limit
    # The planted fault: another picture's scores are further away.
    assert max(abs(theirs[0][label] - mine[1][label]) for label in mine[1]) > limit


def _own_scores(answer: dict[str, Any], temperature: float) -> dict[str, float]:
    """What the model said, by label, before the temperature sharpened it and all differences."""
    powers = {one["label"]: one["score"] ** temperature for one in answer["top"]}
    return {label: power / sum(powers.values()) for label, power in powers.items()}


def test_the_boards_never_see_this_machines_sys() -> None:
    for board in BOARDS.values():
        words = " ".join(login(board, Path(HOME)))
        assert "/proc" in words
        assert "/sys " not in words
        assert '$root/sys"' not in words
