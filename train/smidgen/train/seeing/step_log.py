"""``steps.jsonl``: one line per training step, appended while training runs.

A killed process may leave half a line at the end; readers skip what is no whole line. Going on
from a checkpoint removes the lines of steps that will be made again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from smidgen.runtime.errors import SchemaError
from smidgen.runtime.files import output_error, write_text
from smidgen.runtime.schema import build


@dataclass(frozen=True)
class StepMetrics:
    """One step. ``step`` counts from 1 over the whole Run, ``epoch`` from 1 within its stage.

    ``loss`` is that of the step's batch, ``learning_rate`` what its update was made with.
    """

    step: int
    stage: str
    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float


class StepLog:
    """Appends steps to a file; for one process. Closes as a context manager."""

    def __init__(self, path: str | os.PathLike[str], done_steps: int = 0) -> None:
        """Keep the lines of the first ``done_steps`` steps, drop the others, open for appending.

        Raises:
            OutputError: the file cannot be written.
        """
        self._path = Path(path)
        kept = [row for row in read_steps(self._path) if row.step <= done_steps]
        write_text(self._path, "".join(_line(row) for row in kept))
        try:
            self._stream: IO[str] = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise output_error(self._path, error) from error

    def append(self, row: StepMetrics) -> None:
        """Write one line. Raises OutputError."""
        try:
            self._stream.write(_line(row))
            self._stream.flush()
        except OSError as error:
            raise output_error(self._path, error) from error

    def close(self) -> None:
        """Every line is in the file; further ones are refused."""
        self._stream.close()


def read_steps(path: str | os.PathLike[str]) -> tuple[StepMetrics, ...]:
    """The whole lines of a step log in order; none where there is no file."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    rows = (_row(line) for line in lines[:-1])  # behind the last line feed: nothing, or a half line
    return tuple(row for row in rows if row is not None)


def _row(line: bytes) -> StepMetrics | None:
    try:
        return build(StepMetrics, json.loads(line))
    except (ValueError, SchemaError):
        return None


def _line(row: StepMetrics) -> str:
    return json.dumps(dataclasses.asdict(row)) + "\n"
