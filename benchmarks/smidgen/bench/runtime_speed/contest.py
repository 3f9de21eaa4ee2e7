"""Contenders take turns, round by round, each time in a fresh process.

One that fails is reported and left out of the remaining rounds; the others go on.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.measure import turn

LIMIT_S = 300.0


@dataclass(frozen=True)
class Sample:
    """What one process has measured.

    ``started_ns``: from starting the process to reading its first answer. ``first_ns``: from the
    first line of the script to that answer. ``runs_ns``: what followed, by what was run.
    """

    answer: int
    started_ns: int
    first_ns: int
    runs_ns: dict[str, list[int]]
    peak_rss_bytes: int


class Contender(Protocol):
    """What takes part in a contest."""

    @property
    def name(self) -> str:
        """Unique in a contest."""

    def run(self) -> Sample:
        """Measure once. Raises ContenderFailed."""


@dataclass(frozen=True)
class FreshProcess:
    """A script that says two lines of JSON: its first answer, then all the rest. See Contender."""

    name: str
    python: Path
    script: Path
    arguments: tuple[str, ...]
    limit_s: float = LIMIT_S

    def run(self) -> Sample:
        """See Contender."""
        command = [str(self.python), "-P", str(self.script), *self.arguments]
        with tempfile.TemporaryFile() as said:
            start = time.perf_counter_ns()
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    env=_as_installed(),
                )
            except OSError as error:
                raise ContenderFailed(f"{self.name}: {self.python}: {error.strerror}") from error
            with process:
                assert process.stdout is not None
                alarm = threading.Timer(self.limit_s, process.kill)
                alarm.start()
                try:
                    first = process.stdout.readline()
                    started_ns = time.perf_counter_ns() - start
                    rest = process.stdout.read()
                finally:
                    alarm.cancel()
            if process.returncode != 0:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                reason = lines[-1].strip() if lines else f"ended with status {process.returncode}"
                raise ContenderFailed(f"{self.name}: {reason}")
        return self._sample(first, rest, started_ns)

    def _sample(self, first: str, rest: str, started_ns: int) -> Sample:
        try:
            found: dict[str, Any] = {**json.loads(first), **json.loads(rest)}
            return Sample(started_ns=started_ns, **found)
        except (TypeError, ValueError) as error:
            raise ContenderFailed(f"{self.name}: its answer is no sample ({error})") from error


def _as_installed() -> dict[str, str]:
    """The environment, in which byte code is kept: nobody compiles all sources at every start."""
    return {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


@dataclass
class Contest:
    """Samples by contender, one a round; only contenders that went through all rounds."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def compare(
    contenders: Sequence[Contender], rounds: int, progress: Callable[[str], None]
) -> Contest:
    """Let ``contenders`` take turns; ``progress`` is told what happens.

    A first round is not counted: it brings files and libraries into memory.
    """
    contest, alive = Contest(), {one.name: one for one in contenders}
    for number in range(-1, rounds):
        for index in turn(len(contenders), max(number, 0), seed=0):
            name = contenders[index].name
            if name not in alive:
                continue
            progress(f"round {number + 1}/{rounds}: {name}")
            try:
                sample = alive[name].run()
            except ContenderFailed as error:
                del alive[name]
                contest.samples.pop(name, None)
                contest.failures.append(str(error))
                progress(f"left out: {error}")
                continue
            if number >= 0:
                contest.samples.setdefault(name, []).append(sample)
    return contest
