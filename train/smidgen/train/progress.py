"""Telling a waiting person what training is doing. Progress goes to stderr, never to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

_BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} images, {rate_noinv_fmt}, "
_BAR += "{remaining} left{postfix}"
_LINE_EVERY_S = 30.0


class Progress(Protocol):
    """Receives what training is doing; one stage at a time."""

    def start(self, name: str, total: int = 0) -> None:
        """A stage begins; ``total`` counts its images, 0 where that is not known."""

    def advance(self, count: int, detail: str = "") -> None:
        """``count`` more images are done; ``detail`` is shown beside the bar."""

    def finish(self) -> None:
        """The stage is over, or given up."""

    def note(self, text: str) -> None:
        """One line that must be seen."""


class SilentProgress:
    """Shows nothing, remembers everything: the fake."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []
        self.counted = 0

    def start(self, name: str, total: int = 0) -> None:  # noqa: ARG002
        """Remember the stage."""
        self.stages.append(name)

    def advance(self, count: int, detail: str = "") -> None:  # noqa: ARG002
        """Count the images."""
        self.counted += count

    def finish(self) -> None:
        """Nothing was shown."""

    def note(self, text: str) -> None:
        """Remember the line."""
        self.notes.append(text)


class ConsoleProgress:
    """On a terminal a bar per stage, in a log file a line every 30 s; both with speed and ETA."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``stream`` is stderr by default; ``clock`` gives seconds."""
        stream = stream or sys.stderr
        self._shown: Progress = _Bar(stream) if stream.isatty() else _Lines(stream, clock)

    def start(self, name: str, total: int = 0) -> None:
        """Draw an empty bar."""
        self._shown.start(name, total)

    def advance(self, count: int, detail: str = "") -> None:
        """Move the bar, or print a line when it is time."""
        self._shown.advance(count, detail)

    def finish(self) -> None:
        """Take the bar away."""
        self._shown.finish()

    def note(self, text: str) -> None:
        """Print the line, above the bar."""
        self._shown.note(text)


class _Bar:
    """tqdm on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None

    def start(self, name: str, total: int = 0) -> None:
        from tqdm import tqdm

        self.finish()
        self._bar = tqdm(
            desc=name, total=total or None, unit=" images", file=self._stream, leave=False,
            dynamic_ncols=True, bar_format=_BAR if total else None,
        )  # fmt: skip

    def advance(self, count: int, detail: str = "") -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(detail, refresh=False)
            self._bar.update(count)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, text: str) -> None:
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)


class _Lines:
    """Lines in a log file: the notes, and while a stage lasts where it stands."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._name, self._total, self._done = "", 0, 0
        self._last_s, self._last_done = 0.0, 0

    def start(self, name: str, total: int = 0) -> None:
        self._name, self._total, self._done = name, total, 0
        self._last_s, self._last_done = self._clock(), 0

    def advance(self, count: int, detail: str = "") -> None:
        self._done += count
        now = self._clock()
        if now - self._last_s < _LINE_EVERY_S:
            return
        speed = (self._done - self._last_done) / (now - self._last_s)
        self._last_s, self._last_done = now, self._done
        where = f"{self._done:,}"
        left = ""
        if self._total and speed:
            where += f"/{self._total:,}"
            left = f", {_duration((self._total - self._done) / speed)} left"
        text = f"{self._name}  {where} images, {speed:,.{int(speed < 10)}f} images/s{left}"
        self.note(f"{text}, {detail}" if detail else text)

    def finish(self) -> None:
        self._name = ""

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    """``1:02:03`` or ``02:03``, as tqdm writes it."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
