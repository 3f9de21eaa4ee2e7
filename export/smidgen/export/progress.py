"""Telling a waiting person what export is doing. Progress goes to stderr, never to stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol, TextIO


class Progress(Protocol):
    """Receives what export is doing; one stage at a time."""

    def start(self, name: str, total: int = 0) -> None:
        """A stage begins; ``total`` counts its images, 0 where it has none."""

    def advance(self, count: int, detail: str = "") -> None:
        """``count`` more images of the stage are done; ``detail`` is shown beside the count."""

    def finish(self) -> None:
        """The stage is over."""

    def note(self, text: str) -> None:
        """One line that must be seen."""


class ConsoleProgress:
    """A line per stage on stderr: ``room``, name, count, seconds.

    Writes to a duplicate of the descriptor, since converters' chatter is kept off the descriptor
    itself while they run. On a terminal the line is redrawn; in a log only the end is written.
    """

    def __init__(self, stream: TextIO | None = None, room: str = "export") -> None:
        self._room = room
        self._stream = stream or open(  # noqa: SIM115 (open as long as this object)
            os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w", encoding="utf-8"
        )
        self._redraws = self._stream.isatty()
        self._name, self._total, self._done, self._began, self._drawn = "", 0, 0, 0.0, 0.0
        self._detail = ""

    def start(self, name: str, total: int = 0) -> None:
        self._name, self._total, self._done = name, total, 0
        self._began, self._detail = time.monotonic(), ""
        self._draw(final=False)

    def advance(self, count: int, detail: str = "") -> None:
        self._done += count
        self._detail = detail
        if time.monotonic() - self._drawn > 0.1:
            self._draw(final=False)

    def finish(self) -> None:
        if self._name:
            self._draw(final=True)
        self._name = ""

    def note(self, text: str) -> None:
        self._write(("\r\x1b[K" if self._redraws else "") + text + "\n")

    def _draw(self, *, final: bool) -> None:
        if not final and not self._redraws:
            return
        self._drawn = time.monotonic()
        count = f" {self._done}/{self._total}" if self._total else ""
        seconds = self._drawn - self._began
        line = f"{self._room:<8}{self._name:<34}{count:>12} {seconds:7.1f} s"
        line += f"  {self._detail}" if self._detail else ""
        self._write(("\r\x1b[K" if self._redraws else "") + line + ("\n" if final else ""))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


@contextlib.contextmanager
def stage(
    progress: Progress, name: str, seconds: dict[str, float], total: int = 0
) -> Iterator[None]:
    """Run the block as the stage ``name`` and add its duration to ``seconds[name]``."""
    began = time.monotonic()
    progress.start(name, total)
    try:
        yield
    finally:
        progress.finish()
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - began, 3)
