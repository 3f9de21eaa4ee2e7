"""The device wheel: small, complete, and installable without its neighbours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[2] / "runtime"
MAX_WHEEL_BYTES = 60_000


@pytest.mark.slow
def test_the_wheel_is_small_and_complete(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    shutil.copytree(RUNTIME, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("smidgen_runtime-*.whl")
    assert 10_000 < wheel.stat().st_size < MAX_WHEEL_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.name for path in (RUNTIME / "smidgen" / "runtime").glob("*.py")}
    assert {f"smidgen/runtime/{name}" for name in modules} <= set(names)
    assert "smidgen/runtime/py.typed" in names
    assert "smidgen/__init__.py" not in names  # a namespace that the toolchain shares
    assert any(name.endswith("licenses/LICENSE") for name in names)
