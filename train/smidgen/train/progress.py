"""Telling a waiting person what training is doing. Progress goes to stderr, never to stdout."""

from __future__ import annotations

import sys
from typing import Any, Protocol


class Progress(Protocol):
    """Receives what training is doing; one stage at a time."""

    def start(self, name: str, total: int = 0) -> None:
        """A stage begins; ``total`` counts its images."""

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
    """A tqdm bar per stage on a terminal; in a log file the notes only."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, name: str, total: int = 0) -> None:
        """Draw an empty bar."""
        from tqdm import tqdm

        self.finish()
        self._bar = tqdm(
            desc=name, total=total or None, unit=" images", file=sys.stderr, disable=None,
            leave=False, dynamic_ncols=True,
        )  # fmt: skip

    def advance(self, count: int, detail: str = "") -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(detail, refresh=False)
            self._bar.update(count)

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, text: str) -> None:
        """Print the line above the bar."""
        if self._bar is None or self._bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)
