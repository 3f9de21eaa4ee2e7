"""Finds the Pythons of other versions on this machine. Standard library only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Optional


def find(version: str) -> Optional[Path]:
    """The Python of ``version`` (such as ``3.13``) on the path or among pyenv's, None if absent.

    pyenv puts programs on the path for versions that do not run: each candidate is asked.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(pyenv.glob(f"{version}.*/bin/python"))
    for path in candidates:
        if _says(path) == version:
            return path
    return None


def _says(python: Path) -> str:
    """The version that this program tells; empty when it does not run."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
