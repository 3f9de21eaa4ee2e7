"""Ctrl-C: one clean ending, whatever library was running when it came."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

STAGE_VARIABLE = "SMIDGEN_STAGE"
"""Set in the environment of a stage of ``smidgen run``: the parent says what was interrupted."""

EXIT_INTERRUPTED = 130

_seen: list[int] = []


def take_signals() -> None:
    """Make Ctrl-C and SIGTERM raise KeyboardInterrupt, and remember that they came.

    A stage is started with SIGINT blocked (see ``stages.py``), so that none can hit Python while it
    starts; it is taken here.
    """
    sys.unraisablehook = _without_interrupts
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def was_interrupted() -> bool:
    """Whether a signal came, also where a library turned it into an error of its own."""
    return bool(_seen)


def is_stage() -> bool:
    """Whether this process is a stage of ``smidgen run``."""
    return bool(os.environ.get(STAGE_VARIABLE))


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _seen.append(number)
    raise KeyboardInterrupt


def _without_interrupts(args: sys.UnraisableHookArgs) -> None:
    """Leave out what Python would print for an interrupt inside a callback or a destructor."""
    if not _seen:
        sys.__unraisablehook__(args)
