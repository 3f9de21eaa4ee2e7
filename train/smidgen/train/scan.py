"""Finding the images of a folder: layout, hashes, duplicates, limit."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from smidgen.runtime.files import sha256_of_file
from smidgen.train.data import (
    Dataset,
    Example,
    Found,
    Inventory,
    Skipped,
    Split,
    divide,
    position,
)
from smidgen.train.errors import DataError
from smidgen.train.recipe import DataRecipe

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
_NEVER_IN_LABELS = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, surrogates (undecodable bytes), line and paragraph ends.
Joiners (Cf), which Persian words and emoji need, are allowed."""

_HINT_DEEPER = (
    "; the class folders hold folders: give one of those, or name ready splits train/ with "
    "validation/ or test/"
)
_HELD_OUT_FIRST: tuple[Split | None, ...] = ("test", "validation", "train", None)


def scan(folder: str | os.PathLike[str], recipe: DataRecipe) -> Dataset:
    """List, hash and divide the images of ``folder``; nothing is decoded.

    Raises:
        DataError: no such folder, no images, one class, a class with too few images.
    """
    return divide(take_inventory(folder, recipe), recipe.shares, recipe.seed)


def take_inventory(folder: str | os.PathLike[str], recipe: DataRecipe) -> Inventory:
    """The distinct images of ``folder``, about ``recipe.limit`` per class (see ``_limited``).

    Duplicates (equal SHA-256) count once; a copy in a held-out split is kept before one in train.
    Equal content under two labels is skipped altogether: one of the labels is wrong, and training
    or testing on either would teach or measure a mistake; ``Inventory.skipped`` names each.

    Raises:
        DataError: no such folder, no class folders, or ready splits that do not fit together.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder; expected a folder of images, one folder per class"
        )
    files, labels, ignored = _list_files(root)
    hashed, unreadable = _hash(files)
    found, duplicates = _distinct(hashed, labels)
    return Inventory(
        folder=str(root),
        labels=labels,
        found=tuple(_limited(found, recipe.limit, recipe.seed)),
        skipped=tuple(unreadable + duplicates),
        ignored_files=ignored,
    )


@dataclass(frozen=True)
class _File:
    path: Path
    label: str
    split: Split | None


def _list_files(root: Path) -> tuple[list[_File], tuple[str, ...], int]:
    splits = _ready_splits(root)
    bases: list[tuple[Path, Split | None]] = [*splits] if splits else [(root, None)]
    files: list[_File] = []
    deeper = 0
    ignored = sum(map(len, _partition(root))) - len(splits) if splits else 0
    labels: dict[Split | None, list[str]] = {}
    for base, split in bases:
        folders, stray = _partition(base)
        labels[split] = [entry.name for entry in folders]
        ignored += len(stray)
        if not folders:
            raise _no_classes(base, stray)
        for entry in folders:
            inside_folders, inside = _partition(entry)
            images = [path for path in inside if is_image(path)]
            deeper += len(inside_folders)
            ignored += len(inside) - len(images) + len(inside_folders)
            files += [_File(path, entry.name, split) for path in images]
    if not files:
        raise DataError(
            f"{root} holds no image: expected .jpg, .jpeg, .png, .webp or .bmp files directly in "
            f"one folder per class ({ignored} other entries were ignored)"
            f"{_HINT_DEEPER if deeper else ''}"
        )
    return files, _checked_labels(root, labels), ignored


def _ready_splits(root: Path) -> list[tuple[Path, Split | None]]:
    """The split folders; empty unless there is ``train`` and at least one other."""
    found: dict[Split, Path] = {}
    for name, split in _SPLIT_FOLDERS.items():
        path = root / name
        if not path.is_dir():
            continue
        if split in found:
            raise DataError(
                f"{root} has both {found[split].name}/ and {name}/; keep one folder for {split}"
            )
        found[split] = path
    if "train" not in found or len(found) < 2:
        return []
    return [(path, split) for split, path in found.items()]


def _partition(folder: Path) -> tuple[list[Path], list[Path]]:
    """(folders, files) in ``folder``, sorted by name; hidden folders are left out."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir()]
    return [entry for entry in folders if not entry.name.startswith(".")], files


def is_image(path: Path) -> bool:
    """By name; a dangling link counts (reading it tells why not), pipes and folders do not."""
    is_known = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    return is_known and (path.is_file() or path.is_symlink())


def _no_classes(base: Path, stray: list[Path]) -> DataError:
    images = sum(is_image(path) for path in stray)
    lying = f"{images} images lie directly in it" if images else "it holds no folder"
    return DataError(
        f"{base} has no class folders ({lying}); expected one folder of images per class"
    )


def _checked_labels(root: Path, labels: dict[Split | None, list[str]]) -> tuple[str, ...]:
    main = labels[None] if None in labels else labels["train"]
    for split, names in labels.items():
        extra = sorted(set(names) - set(main))
        if extra:
            raise DataError(
                f"{root}: class {extra[0]!r} is in {split}/ but not in train/; "
                "every class needs training images"
            )
    for name in main:
        if not _is_label(name):
            raise DataError(
                f"{root}: the class folder {name!r} cannot name a class: give it a name without "
                "spaces at its ends, control characters and bytes that are no UTF-8"
            )
    return tuple(main)


def _is_label(name: str) -> bool:
    """Whether ``name`` can be a line of the ``labels.txt`` of a Bundle, which export will write."""
    has_ends = name != name.strip()
    return not has_ends and not any(unicodedata.category(c) in _NEVER_IN_LABELS for c in name)


def _hash(files: list[_File]) -> tuple[list[tuple[_File, str]], list[Skipped]]:
    def digest(file: _File) -> str | OSError:
        try:
            return sha256_of_file(file.path)
        except OSError as error:
            return error

    hashed: list[tuple[_File, str]] = []
    skipped: list[Skipped] = []
    with ThreadPoolExecutor() as pool:
        for file, result in zip(files, pool.map(digest, files), strict=True):
            if isinstance(result, OSError):
                reason = f"cannot be read: {result.strerror or result}"
                skipped.append(Skipped(str(file.path), reason))
            else:
                hashed.append((file, result))
    return hashed, skipped


def _distinct(
    hashed: Iterable[tuple[_File, str]], labels: tuple[str, ...]
) -> tuple[list[Found], list[Skipped]]:
    copies: dict[str, list[_File]] = defaultdict(list)
    for file, sha256 in hashed:
        copies[sha256].append(file)
    found: list[Found] = []
    skipped: list[Skipped] = []
    for sha256, files in copies.items():
        names = sorted({file.label for file in files})
        if len(names) > 1:
            reason = f"the same content is in the classes {', '.join(names)}"
            skipped += [Skipped(str(file.path), reason) for file in files]
            continue
        kept, *others = sorted(
            files, key=lambda file: (_HELD_OUT_FIRST.index(file.split), str(file.path))
        )
        skipped += [Skipped(str(file.path), f"the same content as {kept.path}") for file in others]
        example = Example(str(kept.path), labels.index(kept.label), sha256)
        found.append(Found(example, kept.split))
    return found, skipped


def _limited(found: list[Found], limit: int, seed: int) -> Iterator[Found]:
    """``limit`` images per class, chosen by hash.

    Ready splits keep their proportions: each gives its rounded share, but one image at least, so
    that a class may have one or two images more.
    """
    if limit == 0:
        yield from found
        return
    groups: dict[tuple[int, Split | None], list[Found]] = defaultdict(list)
    totals: dict[int, int] = defaultdict(int)
    for item in found:
        groups[item.example.label, item.split].append(item)
        totals[item.example.label] += 1
    for (label, _), items in groups.items():
        share = max(1, round(len(items) * min(1.0, limit / totals[label])))
        ordered = sorted(items, key=lambda item: position(item.example.sha256, f"limit {seed}"))
        yield from ordered[:share]
