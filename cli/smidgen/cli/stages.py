"""The stages of ``smidgen run``: child processes of the same interpreter.

A stage of its own process gives its memory back when it ends, may use another Keras backend than
the next one, and cannot take the line down with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from smidgen.cli.interrupts import STAGE_VARIABLE

_PATIENCE_S = 3.0
_CLEAN_UP_S = 20.0


class StageRunner(Protocol):
    """Runs one ``smidgen`` command to its end."""

    def run(self, argv: Sequence[str]) -> int:
        """The exit status of ``smidgen ARGV...``; negative: the signal that killed it.

        Raises KeyboardInterrupt, after the command has ended, when it was interrupted.
        """
        ...


class ProcessRunner:
    """Runs each command in a child process; its stderr is ours, its stdout is dropped."""

    def __init__(
        self,
        program: Sequence[str] = (sys.executable, "-P", "-m", "smidgen.cli"),
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """``patience_s``: how long a child may take to notice by itself that it was interrupted.

        ``-P`` in ``program``: a ``numpy.py`` in the folder where the user stands is not imported.
        """
        self._program = tuple(program)
        self._patience_s = patience_s

    def run(self, argv: Sequence[str]) -> int:
        process: subprocess.Popen[bytes] | None = None
        try:
            with _signals_held_back():
                process = subprocess.Popen(
                    [*self._program, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, STAGE_VARIABLE: "1"},
                )
            return process.wait()
        except KeyboardInterrupt:
            if process is not None:
                self._end(process)
            raise

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a child that got Ctrl-C with us; ask it again; at a second Ctrl-C, kill it."""
        try:
            for wait_s in (self._patience_s, _CLEAN_UP_S):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(wait_s)
                    return
                process.send_signal(signal.SIGINT)
            process.wait(self._patience_s)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            pass
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


class FakeRunner:
    """For tests: each command is answered by ``answer(argv)``, which may also write files."""

    def __init__(self, answer: Callable[[Sequence[str]], int]) -> None:
        self._answer = answer
        self.calls: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str]) -> int:
        self.calls.append(tuple(argv))
        return self._answer(argv)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let no Ctrl-C or SIGTERM through while a child starts: they come when its handle is known.

    Blocking SIGINT alone is not enough: it is for the child, which inherits the block and lifts it
    when it is ready, so that no traceback from inside Python's start is shown. Here any other
    thread (numpy has some) would take the signal, and a child whose handle never came back from
    ``Popen`` would live on without us.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are never handled here
        return
    came: list[int] = []
    with contextlib.ExitStack() as undo:
        undo.callback(_deliver, came)
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(number, lambda number, _: came.append(number))
            undo.callback(signal.signal, number, handler)
        if hasattr(signal, "pthread_sigmask"):
            undo.callback(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGINT})
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield


def _deliver(numbers: Sequence[int]) -> None:
    for number in numbers[:1]:
        signal.raise_signal(number)
