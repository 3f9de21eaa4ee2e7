"""Which smidgen made a row."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path


@functools.cache
def source_commit() -> str:
    """The commit of the source tree that this module runs from; ``-dirty``: it was changed.

    Empty for an installed wheel, or where git is not there.
    """
    here = Path(__file__).resolve().parent
    # benchmarks/smidgen/bench in a source tree: anything else is an installed copy.
    if not (here.parents[2] / ".git").exists():
        return ""
    command = [
        "git",
        "-C",
        str(here),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
