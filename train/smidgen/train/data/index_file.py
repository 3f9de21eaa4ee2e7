"""``data.labels = "index"``: a CSV file that names the images and their labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smidgen.train.data.dataset import Skipped, Split
from smidgen.train.data.listing import SPLIT_NAMES, Base, File, Listing, group_of, is_label
from smidgen.train.errors import DataError
from smidgen.train.recipe import DataRecipe

_NEEDED = ("path", "label")
_OPTIONAL = ("split", "group")


@dataclass(frozen=True)
class _Line:
    """One line of the file: its number, from 1, and the known columns."""

    number: int
    path: str
    label: str
    split: str
    group: str


def list_index(root: Path, recipe: DataRecipe) -> Listing:
    """The images that ``ROOT/<recipe.index>`` lists; what it does not list is not looked at.

    The file is UTF-8 CSV with a header. Columns: ``path`` (from the CSV file's folder), ``label``;
    optional ``split`` (train, val, valid, validation or test, in every line or in none) and
    ``group`` (may be empty); others are ignored. A file that does not exist is skipped.

    Raises:
        DataError: no such file, or a line that is wrong: names file, line, value and what was
            expected.
    """
    path = root / Path(recipe.index).expanduser()
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path} lists no image; expected a line of path,label for each")
    if recipe.group_by != "none" and any(line.group for line in lines):
        raise DataError(
            f"{path} has a column group, and data.group_by is {recipe.group_by!r}; keep one: "
            'choose data.group_by = "none", or take the column out'
        )
    splits = _splits(path, lines)
    _check_labels(path, lines, splits)
    files: list[File] = []
    skipped: list[Skipped] = []
    for line, split in zip(lines, splits, strict=True):
        image = path.parent / line.path
        if image.is_file():
            group = line.group or group_of(image, Base(path.parent, split), recipe)
            files.append(File(image, line.label, split, group))
        else:
            what = "it is not a file" if image.exists() else "no such file"
            skipped.append(Skipped(str(image), f"listed in {path.name}, but {what}"))
    if not files:
        raise DataError(f"{path}: none of the {len(lines)} listed files exists: {skipped[0].path}")
    labels = tuple(sorted({line.label for line in lines}))
    return Listing(tuple(files), labels, ignored_files=0, skipped=tuple(skipped))


def _lines(path: Path) -> Iterator[_Line]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            try:
                header = _header(path, next(reader, []))
                yield from _rows(path, reader, header)
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, after line {reader.line_num}: bytes that are no UTF-8; save the file "
                    "as UTF-8"
                ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror or error}); expected a CSV file with the columns "
            "path,label, and data.index giving its name"
        ) from error


def _header(path: Path, names: list[str]) -> dict[str, int]:
    columns = {name: index for index, name in enumerate(names) if name in (*_NEEDED, *_OPTIONAL)}
    twice = next((name for name in columns if names.count(name) > 1), None)
    if twice:
        raise DataError(f"{path}, line 1: the column {twice} is there twice; keep one")
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise DataError(
            f"{path}, line 1: no column {missing[0]!r} in {','.join(names)!r}; expected "
            "path,label and, if wanted, split,group"
        )
    return columns


def _rows(path: Path, reader: Iterator[list[str]], header: dict[str, int]) -> Iterator[_Line]:
    width = max(header.values()) + 1
    seen: dict[str, int] = {}
    for row in reader:
        number: int = reader.line_num  # type: ignore[attr-defined]
        if not row:
            continue
        where = f"{path}, line {number}"
        if len(row) < width:
            raise DataError(f"{where}: {len(row)} fields; expected {width}, as in line 1")
        cells = {name: row[index] for name, index in header.items()}
        name, label = cells["path"], cells["label"]
        if not name or "\0" in name:
            raise DataError(f"{where}: path is {name!r}; expected the path of an image")
        if not is_label(label):
            raise DataError(
                f"{where}: {label!r} cannot name a class; expected a label without spaces at its "
                "ends and control characters"
            )
        if name in seen:
            raise DataError(f"{where}: {name} is in line {seen[name]} already; keep one line")
        seen[name] = number
        yield _Line(number, name, label, cells.get("split", ""), cells.get("group", ""))


def _splits(path: Path, lines: list[_Line]) -> list[Split | None]:
    """The split of each line: none where no line names one."""
    if not any(line.split for line in lines):
        return [None] * len(lines)
    for line in lines:
        if line.split not in SPLIT_NAMES:
            raise DataError(
                f"{path}, line {line.number}: split is {line.split!r}; expected one of "
                f"{', '.join(SPLIT_NAMES)} in every line (what is not named is cut out of train)"
            )
    return [SPLIT_NAMES[line.split] for line in lines]


def _check_labels(path: Path, lines: list[_Line], splits: list[Split | None]) -> None:
    trained = {line.label for line, split in zip(lines, splits) if split in (None, "train")}
    for line, split in zip(lines, splits, strict=True):
        if line.label not in trained:
            raise DataError(
                f"{path}, line {line.number}: class {line.label!r} is in {split} but no line has "
                "it in train; every class needs training images"
            )
