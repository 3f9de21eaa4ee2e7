"""The contest: each quantizer makes its file, which is read in the runtime that would run it.

One that fails is reported in its row; the others go on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.quantization.contenders import ROOM, Contender
from smidgen.bench.quantization.fidelity import Fidelity, compare
from smidgen.bench.quantization.task import PixelScale, Task

PATIENCE_S = 3600.0
"""Seconds after which a process that does not end is stopped."""


@dataclass(frozen=True)
class Made:
    """An int8 file: seconds that it took, and versions of what made it."""

    file: Path
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """``answers``: ``(N,) int64`` classes. ``logits``: ``(N, classes) float32``."""

    answers: NDArray[np.int64]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One contender's line: its figures, or why it has none."""

    name: str
    is_ours: bool
    file_bytes: int = 0
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    fidelity: Fidelity | None = None
    failure: str = ""


class Laboratory(Protocol):
    """Where files are made and read."""

    def quantize(self, contender: Contender) -> Made:
        """Make the contender's file. Raises ContenderFailed."""

    def read(self, name: str, file: Path) -> Reading:
        """A file's answers and logits on the judged images. Raises ContenderFailed."""


@dataclass(frozen=True)
class Processes:
    """A ``Laboratory`` whose steps are processes.

    ``task``: without method and target. ``pixels``: the judged images as ``.npy``. ``out``: where
    int8 files go. ``environments``: the folder that holds ``.venv-NAME`` folders. ``rooms``: a
    folder on whose path other environments find our packages.
    """

    task: Task
    pixels: Path
    out: Path
    environments: Path
    rooms: Path

    def quantize(self, contender: Contender) -> Made:
        """See ``Laboratory``."""
        target = self.out / (contender.stem + contender.suffix)
        task = replace(self.task, method=contender.method, target=str(target))
        python, environment = sys.executable, {"TF_CPP_MIN_LOG_LEVEL": "3"}
        if contender.environment:
            python = str(self.environments / f".venv-{contender.environment}" / "bin" / "python")
            environment["PYTHONPATH"] = str(self.rooms)
            if not Path(python).exists():
                raise ContenderFailed(
                    f"{contender.name}: its environment is not there: run "
                    f"`python tools/setup_env.py {contender.environment}`"
                )
        command = [python, "-m", ROOM + contender.worker, task.to_json()]
        said = _run(contender.name, command, environment)
        try:
            answer = json.loads(said)
            return Made(target, float(answer["seconds"]), dict(answer["versions"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ContenderFailed(f"{contender.name}: it answered {said[:100]!r}") from error

    def read(self, name: str, file: Path) -> Reading:
        """See ``Laboratory``."""
        scale: PixelScale = self.task.scale
        with tempfile.TemporaryDirectory(prefix="smidgen-logits-") as folder:
            out = Path(folder, "out.npz")
            numbers = [repr(scale.scale), str(scale.zero_point)]
            files = [str(file), str(self.pixels), *numbers, str(out)]
            _run(name, [sys.executable, "-m", ROOM + "logits", *files], {})
            try:
                with np.load(out) as found:
                    return Reading(found["answers"], found["logits"])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise ContenderFailed(f"{name}: no answers were left ({error})") from error


def hold(
    contenders: Sequence[Contender],
    laboratory: Laboratory,
    reference: NDArray[np.float32],
    truth: NDArray[np.int64] | None,
    progress: Callable[[str], None],
) -> list[Row]:
    """The rows of all contenders, in the order of ``sort_key``.

    Args:
        contenders: who takes part.
        laboratory: makes and reads their files.
        reference: the float model's logits, ``(N, classes) float32``.
        truth: the right classes, ``(N,) int64``, or None.
        progress: is told what happens.
    """
    rows = []
    for contender in contenders:
        progress(contender.name)
        try:
            row = _row(contender, laboratory, reference, truth)
        except ContenderFailed as error:
            progress(f"FAILED {error}")
            reason = str(error).removeprefix(f"{contender.name}: ")
            row = Row(contender.name, contender.is_ours, failure=reason)
        rows.append(row)
    return sorted(rows, key=sort_key)


def sort_key(row: Row) -> tuple[float, float]:
    """Most answers kept first; then the smallest mean logit difference; failures last."""
    if row.fidelity is None:
        return (1.0, 0.0)
    return (-row.fidelity.kept.hits / row.fidelity.kept.total, row.fidelity.mean_difference)


def best_rival(rows: Sequence[Row]) -> Row | None:
    """The row that is not ours with the smallest mean logit difference; None where all failed."""
    rivals = [row for row in rows if not row.is_ours and row.fidelity is not None]
    return min(rivals, key=_mean_difference, default=None)


def _mean_difference(row: Row) -> float:
    return float("inf") if row.fidelity is None else row.fidelity.mean_difference


def _row(
    contender: Contender,
    laboratory: Laboratory,
    reference: NDArray[np.float32],
    truth: NDArray[np.int64] | None,
) -> Row:
    made = laboratory.quantize(contender)
    reading = laboratory.read(contender.name, made.file)
    try:
        fidelity = compare(reference, reading.logits, reading.answers, truth)
    except ValueError as error:
        raise ContenderFailed(f"{contender.name}: {error}") from error
    size = made.file.stat().st_size
    return Row(contender.name, contender.is_ours, size, made.seconds, made.versions, fidelity)


def _run(name: str, command: Sequence[str], environment: dict[str, str]) -> str:
    """What ``command`` printed. Raises ContenderFailed with the last line of its complaints."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContenderFailed(f"{name}: {command[0]}: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise ContenderFailed(f"{name}: {lines[-1].strip()}")
    return done.stdout
