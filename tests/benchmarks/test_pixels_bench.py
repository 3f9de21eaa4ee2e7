"""The benchmark of pixels prints a row for each file, and fails for one that is no picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smidgen.bench.runtime_speed.pixels import main


def test_a_row_for_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, columns = np.mgrid[0:300, 0:400]
    photo = np.stack([rows % 256, columns % 256, (rows + columns) % 256], 2).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    names = [str(tmp_path / name) for name in ("photo.jpg", "text.jpg")]
    assert main([*names, "--side", "32", "--rounds", "3"]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2].startswith("| photo.jpg | ")
    assert len(printed.out.splitlines()) == 3
    assert "not an image" in printed.err
