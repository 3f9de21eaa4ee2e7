"""This machine as a Device."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from smidgen.bench.errors import DeviceRunFailed
from smidgen.bench.facts import DeviceFacts, gather

PROCESS_LIMIT_S = 600.0


class LocalDevice:
    """This machine: files stay where they are, programs run in this interpreter's environment."""

    def __init__(self, *, limit_s: float = PROCESS_LIMIT_S) -> None:
        """``limit_s``: seconds after which a process is stopped and counts as failed."""
        self._limit_s = limit_s

    @property
    def name(self) -> str:
        return "local"

    def facts(self) -> DeviceFacts:
        return gather()

    def push(self, path: Path) -> str:
        return str(path.resolve())

    def run(self, argv: Sequence[str]) -> str:
        # -P: a numpy.py in the folder where the user stands is not ours to import
        command = [sys.executable, "-P", "-m", "smidgen.runtime", *argv]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self._limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceRunFailed(
                f"no answer within {self._limit_s:g} s: measure fewer runs, or a smaller model"
            ) from error
        if done.returncode != 0:
            raise DeviceRunFailed(_ending(done.returncode, done.stderr))
        return done.stdout


def _ending(returncode: int, stderr: str) -> str:
    """One line for a process that ended badly."""
    if returncode < 0:
        try:
            cause = signal.Signals(-returncode).name
        except ValueError:
            cause = f"signal {-returncode}"
        return f"the process was killed by {cause}: the engine cannot run this file here"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with status {returncode} and no message"
