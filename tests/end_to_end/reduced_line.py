"""The demo's line at a reduced size, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DEMO_RECIPE = REPO / "examples" / "digits" / "recipe.toml"

# 60 digits a class, cut 0.65 : 0.10 : 0.25, leave some 150 to judge with: enough to tell a working
# model from a broken one, and too few for a drop of 1 point, so that the limit is 20 here.
REDUCED = (
    "--limit", "60", "--image-size", "64", "--head-epochs", "4", "--full-epochs", "1",
    "--calibration-images", "60", "--max-drop", "20", "--rounds", "2", "--runs", "5",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Line:
    """A finished `smidgen run` at the reduced size."""

    argv: tuple[str, ...]
    folder: Path
    digits: Path
    ended: Ended

    def bundle(self, ending: str) -> Path:
        """The one Bundle whose name ends so, such as ``int8.tflite``."""
        (path,) = (self.folder / "bundles").glob(f"*-{ending}")
        return path


def clean_environment() -> dict[str, str]:
    """This process's environment without what would let a bare environment see the repository."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def smidgen(argv: Sequence[str]) -> Ended:
    """Run the command as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "smidgen.cli", *argv], capture_output=True, text=True, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)
