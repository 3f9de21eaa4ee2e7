"""The runtime's wheel on every other Python that it supports: numpy and Pillow, no engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from reduced_line import REPO, clean_environment

import interpreters
from environments import OTHER_PYTHONS

pytestmark = pytest.mark.slow

# What needs nothing but numpy, Pillow and the fake engine.
TESTS = ("import", "manifest", "preprocessing", "decisions", "tuning", "stream", "selftest")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime's wheel, built once."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, str(REPO / "runtime")], check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.parametrize("version", OTHER_PYTHONS)
def test_the_wheel_passes_the_runtimes_tests(version: str, wheel: Path) -> None:
    if interpreters.find(version) is None:
        pytest.skip(f"Python {version} is not on this machine (as python{version} or in pyenv)")
    setup = [sys.executable, str(REPO / "tools" / "setup_env.py"), f"python{version}"]
    made = subprocess.run(
        [*setup, "--wheel", str(wheel)], check=True, stdout=subprocess.PIPE, text=True
    )
    files = [str(REPO / "tests" / "runtime" / f"test_{name}.py") for name in TESTS]
    done = subprocess.run(
        [made.stdout.strip(), "-m", "pytest", "-qm", "not slow", "-p", "no:cacheprovider", *files],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
        env={**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
