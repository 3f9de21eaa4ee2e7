"""``import smidgen.runtime`` imports numpy and the standard library, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, sysconfig
before = set(sys.modules)
import numpy
numpys = set(sys.modules)
import smidgen.runtime
import smidgen.runtime.command
paths = [sysconfig.get_paths()[key] for key in ("purelib", "platlib")]
for name in sorted(set(sys.modules) - numpys - before):
    file = getattr(sys.modules[name], "__file__", None) or ""
    if not name.startswith(("smidgen", "numpy")) and any(file.startswith(path) for path in paths):
        print(name)
for name in ("PIL", "ai_edge_litert", "tflite_runtime", "tensorflow", "onnxruntime", "onnx"):
    if name in sys.modules:
        print(name)
"""


def foreign(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return done.stdout.decode().split()


def test_nothing_but_numpy_is_imported() -> None:
    assert foreign(SCRIPT) == []


def test_the_test_would_see_another_import() -> None:
    planted = SCRIPT.replace("import smidgen.runtime\n", "import smidgen.runtime, pytest\n")
    assert "pytest" in foreign(planted)


def test_every_public_name_exists() -> None:
    import smidgen.runtime

    assert all(hasattr(smidgen.runtime, name) for name in smidgen.runtime.__all__)
    assert callable(smidgen.runtime.selftest)


def test_a_jpeg_needs_no_other_reader(tmp_path: Path) -> None:
    """Each reader that Pillow imports is time to the first answer."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "photo"
    image.new("RGB", (8, 8)).save(path, "JPEG")
    code = (
        "import sys; from smidgen.runtime.preprocessing import decode; "
        "decode(sys.argv[1]); decode(open(sys.argv[1], 'rb').read()); "
        "print(*[name for name in sys.modules if name.endswith('ImagePlugin')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    )
    assert set(done.stdout.split()) <= {"PIL.JpegImagePlugin", "PIL.MpoImagePlugin"}
