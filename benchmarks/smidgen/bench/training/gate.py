"""A worker's side of the contest: it trains without end, and the gate says when.

The protocol is JSON lines. When the first step is done the worker says

    {"first_step_s": 1.9, "versions": {...}}

and waits. For each ``{"warm_up": 2, "steps": 10}`` it makes as many steps and answers

    {"seconds": 5.1, "images": 320, "waited_s": 20.0, "waited_cpu_s": 0.01}

where the time is that of the 10, and the last two say how long it had waited before and what its
threads had worked meanwhile. It ends when its input does. Imports the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO


class Over(Exception):
    """Raised out of the training when nothing more is asked for."""


class Gate:
    """Lets a training go on for as many steps as it is asked for."""

    def __init__(
        self,
        requests: TextIO,
        answers: TextIO,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._requests, self._answers = requests, answers
        self._clock, self._cpu_clock = clock, cpu_clock
        self._versions: Mapping[str, str] = {}
        self._began = clock()
        self._is_first = True
        self._warm_up = self._steps = self._images = 0
        self._waited_s = self._waited_cpu_s = 0.0

    def built(self, versions: Mapping[str, str]) -> None:
        """Packages are imported and the network is built: the time to the first step begins."""
        self._versions = versions
        self._began = self._clock()

    def step(self, images: int, finish: Callable[[], object] | None = None) -> None:
        """A step with ``images`` is done. Returns when the next one is wanted.

        ``finish`` waits for an accelerator; it is called only where a time is taken.

        Raises:
            Over: nothing more is wanted.
        """
        if self._is_first:
            self._is_first = False
            _call(finish)
            seconds = self._clock() - self._began
            self._say({"first_step_s": seconds, "versions": dict(self._versions)})
            self._wait()
        elif self._warm_up:
            self._warm_up -= 1
        else:
            self._steps -= 1
            self._images += images
            if not self._steps:
                _call(finish)
                self._answer()
                self._wait()
            return
        if not self._warm_up:
            _call(finish)
            self._began = self._clock()

    def _answer(self) -> None:
        self._say(
            {
                "seconds": self._clock() - self._began,
                "images": self._images,
                "waited_s": self._waited_s,
                "waited_cpu_s": self._waited_cpu_s,
            }
        )

    def _wait(self) -> None:
        began, cpu_began = self._clock(), self._cpu_clock()
        line = self._requests.readline()
        if not line:
            raise Over
        request = json.loads(line)
        self._waited_s = self._clock() - began
        self._waited_cpu_s = self._cpu_clock() - cpu_began
        self._warm_up, self._steps, self._images = request["warm_up"], request["steps"], 0
        self._began = self._clock()

    def _say(self, answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)


def _call(finish: Callable[[], object] | None) -> None:
    if finish is not None:
        finish()


def standard_gate() -> Gate:
    """A gate on standard input and output; whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return Gate(sys.stdin, answers)
