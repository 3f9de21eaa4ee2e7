"""Measurement: one flat row for one process on one Device, with every raw sample in it.

Rows are kept in a journal, a file of JSON lines. A row is flushed to the disk as soon as it is
taken; what a killed run or a full disk left of a line is cut off before the next one is appended,
and skipped when the journal is read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smidgen.bench.errors import JournalDamaged
from smidgen.bench.facts import DeviceFacts
from smidgen.runtime.errors import SchemaError
from smidgen.runtime.files import output_error
from smidgen.runtime.schema import as_mapping, build
from smidgen.runtime.timing import TimingSample


@dataclass(frozen=True)
class Measurement:
    """What one fresh process measured of one Bundle. Times are in ns, sizes in bytes.

    In its row the fields of ``device`` and ``sample`` are columns of their own, with the prefixes
    ``device_`` and ``sample_``.
    """

    sweep: str
    utc: str
    round: int
    position: int
    bundle_sha256: str
    bundle_file: str
    name: str
    model_format: str
    scheme: str
    file_bytes: int
    weights_sha256: str
    input_height: int
    input_width: int
    smidgen_version: str
    commit: str
    device_name: str
    device: DeviceFacts
    sample: TimingSample

    def to_row(self) -> dict[str, Any]:
        """Column name to JSON value, without nesting (raw samples are lists of whole numbers)."""
        row: dict[str, Any] = {}
        for key, value in as_mapping(self).items():
            if key in _NESTED:
                row.update({f"{key}_{inner}": item for inner, item in value.items()})
            else:
                row[key] = value
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Measurement:
        """The inverse of ``to_row``. Raises SchemaError for a column that is missing or unknown."""
        columns = dict(row)
        mapping: dict[str, Any] = {}
        for key, nested in _NESTED.items():
            names = {f"{key}_{field.name}": field.name for field in dataclasses.fields(nested)}
            mapping[key] = {names[name]: columns.pop(name) for name in names if name in columns}
        return build(cls, {**columns, **mapping}, where="measurement")


_NESTED: dict[str, Any] = {"device": DeviceFacts, "sample": TimingSample}


def append(journal: Path, measurement: Measurement) -> None:
    """Add one row to the journal, which is made where there is none. Raises OutputError."""
    line = json.dumps(measurement.to_row(), separators=(",", ":")) + "\n"
    data = line.encode("ascii")  # a file name that is not UTF-8 is escaped like any other
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        with open(journal, "a+b", buffering=0) as stream:
            whole = _whole_lines_bytes(stream)
            if whole < stream.seek(0, os.SEEK_END):
                stream.truncate(whole)
            rest = memoryview(data)
            while rest:  # after a part was written, a full disk says so at the next attempt
                rest = rest[stream.write(rest) :]
            os.fsync(stream.fileno())
    except OSError as error:
        raise output_error(journal, error) from error


def read(journal: Path) -> tuple[Measurement, ...]:
    """All rows of a journal, oldest first; a torn last line is left out.

    Raises:
        JournalDamaged: a complete line is not a Measurement.
        OSError: the file cannot be read.
    """
    rows: list[Measurement] = []
    for number, line in enumerate(journal.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            rows.append(Measurement.from_row(json.loads(line)))
        except (ValueError, SchemaError) as error:
            raise JournalDamaged(
                f"{journal}, line {number}: {error}; move the file away and measure again"
            ) from error
    return tuple(rows)


def _whole_lines_bytes(stream: typing.BinaryIO) -> int:
    """The file's size up to and with its last line end."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        stream.seek(start)
        at = stream.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
