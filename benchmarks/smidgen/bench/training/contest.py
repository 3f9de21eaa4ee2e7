"""The contest: trainings in processes of their own take turns, round by round.

A contender waits, asleep, while another one trains. One that fails is reported and left out; the
others go on.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.measure import turn

WARM_UP_STEPS = 2
"""Before each sample, not counted: they use up what was prepared while the others trained."""
_FIRST_STEPS = 2
_STOP_S = 10.0


@dataclass(frozen=True)
class Sample:
    """``seconds`` for ``images``, and what the contender did before, while it waited."""

    seconds: float
    images: int
    waited_s: float
    waited_cpu_s: float

    @property
    def ns_per_image(self) -> int:
        """What the statistics are made of."""
        return round(1e9 * self.seconds / self.images)


class Training(Protocol):
    """A training that goes on for as many steps as it is asked for."""

    @property
    def name(self) -> str:
        """Unique in a contest."""

    @property
    def first_step_s(self) -> float:
        """Seconds from a built network to the end of the first step, imports apart."""

    def run(self, warm_up: int, steps: int) -> Sample:
        """Make ``warm_up`` steps, then ``steps`` that count. Raises ContenderFailed."""

    def close(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Contender:
    """A worker's command line, and what it is called."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """A contender's process. See ``Training``."""

    def __init__(self, contender: Contender) -> None:
        """Start it and wait for its first step. Raises ContenderFailed."""
        self.name = contender.name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        try:
            self._process = subprocess.Popen(
                contender.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                env={**os.environ, **contender.environment},
            )
        except OSError as error:
            raise ContenderFailed(f"{self.name}: {contender.command[0]}: {error}") from error
        ready = self._answer()
        self.first_step_s = float(ready["first_step_s"])
        self.versions: dict[str, str] = ready["versions"]

    def run(self, warm_up: int, steps: int) -> Sample:
        """See ``Training``."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            print(json.dumps({"warm_up": warm_up, "steps": steps}), file=stdin, flush=True)
        except OSError as error:
            raise ContenderFailed(f"{self.name}: {self._last_words()}") from error
        return Sample(**self._answer())

    def close(self) -> None:
        """See ``Training``."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()
        self._said.close()

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise ContenderFailed(f"{self.name}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"ended with status {status} and no message"


@dataclass
class Contest:
    """What a contest brought home: samples by contender, one for each round."""

    first_step_s: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def compare(
    makers: Sequence[Callable[[], Training]],
    rounds: int,
    sample_s: float,
    progress: Callable[[str], None],
) -> Contest:
    """Start all trainings, one after the other, and let them take turns.

    Args:
        makers: each starts one training.
        rounds: samples of each.
        sample_s: about how long a sample takes, in seconds; at least one step.
        progress: is told what happens.
    """
    contest, trainings, steps = Contest(), {}, {}
    try:
        for make in makers:
            try:
                training = make()
                trainings[training.name] = training
                tried = training.run(_FIRST_STEPS, _FIRST_STEPS)
            except ContenderFailed as error:
                _drop(error, contest, progress)
                continue
            name = training.name
            step_s = tried.seconds / _FIRST_STEPS
            steps[name] = max(1, math.ceil(sample_s / step_s))
            contest.first_step_s[name] = training.first_step_s
            contest.samples[name] = []
            progress(f"{name}: first step {training.first_step_s:.2f} s, then {step_s:.3f} s")
        _rounds(contest, trainings, steps, rounds, progress)
    finally:
        for training in trainings.values():
            training.close()
    return contest


def _rounds(
    contest: Contest,
    trainings: Mapping[str, Training],
    steps: dict[str, int],
    rounds: int,
    progress: Callable[[str], None],
) -> None:
    names = list(steps)
    for number in range(rounds):
        for index in turn(len(names), number, seed=0):
            name = names[index]
            if name not in steps:
                continue
            progress(f"round {number + 1}/{rounds}: {name}")
            try:
                contest.samples[name].append(trainings[name].run(WARM_UP_STEPS, steps[name]))
            except ContenderFailed as error:
                del steps[name], contest.samples[name], contest.first_step_s[name]
                _drop(error, contest, progress)


def _drop(error: ContenderFailed, contest: Contest, progress: Callable[[str], None]) -> None:
    contest.failures.append(str(error))
    progress(f"left out: {error}")
