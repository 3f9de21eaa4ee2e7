"""What lies in a folder: image files, ready splits, names that can be labels."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smidgen.train.data.dataset import Skipped, Split
from smidgen.train.errors import DataError
from smidgen.train.recipe import DataRecipe

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
_NEVER_IN_LABELS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, surrogates (undecodable bytes), line and paragraph ends.
Joiners (Cf), which Persian words and emoji need, are allowed."""


@dataclass(frozen=True)
class File:
    """An image file that was listed. ``group`` "" is no group."""

    path: Path
    label: str
    split: Split | None
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """All image files of the data with their labels in order; nothing was opened yet."""

    files: tuple[File, ...]
    labels: tuple[str, ...]
    ignored_files: int
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Base:
    """A folder whose inside is laid out as the labels' rule says: the root or a ready split."""

    folder: Path
    split: Split | None


def bases(root: Path) -> tuple[list[Base], int]:
    """The ready splits of ``root``, or ``root`` itself; and the entries beside ready splits.

    There are ready splits where there is a folder ``train`` and at least one other.

    Raises:
        DataError: two folders for one split.
    """
    found: dict[Split, Path] = {}
    for name, split in SPLIT_NAMES.items():
        path = root / name
        if not path.is_dir():
            continue
        if split in found:
            raise DataError(
                f"{root} has both {found[split].name}/ and {name}/; keep one folder for {split}"
            )
        found[split] = path
    if "train" not in found or len(found) < 2:
        return [Base(root, None)], 0
    beside = sum(map(len, partition(root))) - len(found)
    return [Base(path, split) for split, path in found.items()], beside


def partition(folder: Path) -> tuple[list[Path], list[Path]]:
    """(folders, files) in ``folder``, sorted by name; hidden folders are left out.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir()]
    return [entry for entry in folders if not entry.name.startswith(".")], files


def files_below(folder: Path) -> Iterator[Path]:
    """All files in ``folder``, any depth, in order; a folder that links lead to again, once."""
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if here.resolve() in seen:
            continue
        seen.add(here.resolve())
        folders, files = partition(here)
        yield from files
        waiting += reversed(folders)


def is_image(path: Path) -> bool:
    """By name; a dangling link counts (reading it tells why not), pipes and folders do not."""
    is_known = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return is_known and (path.is_file() or path.is_symlink())


def is_label(name: str) -> bool:
    """Whether ``name`` can be a line of the ``labels.txt`` of a Bundle, which export will write."""
    has_ends = name != name.strip()
    is_clean = not any(unicodedata.category(character) in _NEVER_IN_LABELS for character in name)
    return bool(name) and not has_ends and is_clean


def checked_labels(root: Path, names: Mapping[Split | None, Sequence[str]]) -> tuple[str, ...]:
    """The labels of train (or of all) in order; those of each split are given.

    Raises:
        DataError: a class that train lacks.
    """
    main = names[None] if None in names else names["train"]
    for split, others in names.items():
        extra = sorted(set(others) - set(main))
        if extra:
            raise DataError(
                f"{root}: class {extra[0]!r} is in {split}/ but not in train/; "
                "every class needs training images"
            )
    return tuple(main)


def group_of(path: Path, base: Base, recipe: DataRecipe) -> str:
    """The group of an image of ``base``, by ``recipe.group_by``; "" is no group.

    ``folder``: the image's folder, as a path in ``base``; a ready split itself is no group.
    ``file-names``: what stands before the first separator, whatever folder it is in.
    """
    if recipe.group_by == "file-names":
        return path.stem.partition(recipe.separator)[0]
    is_split = path.parent == base.folder and base.split is not None
    if recipe.group_by == "none" or is_split:
        return ""
    inside = path.is_relative_to(base.folder)
    return (path.parent.relative_to(base.folder) if inside else path.parent).as_posix()
