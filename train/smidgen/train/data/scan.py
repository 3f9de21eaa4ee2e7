"""From a folder to its inventory: listing, hashes, duplicates, limit."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from smidgen.runtime.files import sha256_of_file
from smidgen.train.data.class_folders import list_class_folders
from smidgen.train.data.dataset import Dataset, Example, Found, Inventory, Skipped, Split
from smidgen.train.data.file_names import list_file_names
from smidgen.train.data.index_file import list_index
from smidgen.train.data.listing import IMAGE_SUFFIXES, File, Listing, is_image
from smidgen.train.data.orientation import list_upright
from smidgen.train.data.splits import divide, position
from smidgen.train.errors import DataError
from smidgen.train.recipe import DataRecipe

__all__ = ["IMAGE_SUFFIXES", "LAYOUTS", "is_image", "scan", "take_inventory"]

LAYOUTS: dict[str, Callable[[Path, DataRecipe], Listing]] = {
    "folders": list_class_folders,
    "file-names": list_file_names,
    "index": list_index,
    "orientation": list_upright,
}
"""Who lists the images, by ``DataRecipe.labels``."""

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
        DataError: no such folder, no labelled images in it, or ready splits that do not fit
            together.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder; expected a folder of images, one folder per class"
        )
    listing = LAYOUTS[recipe.labels](root, recipe)
    hashed, unreadable = _hash(listing.files)
    found, duplicates = _distinct(hashed, listing.labels)
    return Inventory(
        folder=str(root),
        labels=listing.labels,
        found=tuple(_limited(found, recipe.limit, recipe.seed)),
        skipped=(*listing.skipped, *unreadable, *duplicates),
        ignored_files=listing.ignored_files,
        task="orientation" if recipe.labels == "orientation" else "classes",
    )


def _hash(files: Iterable[File]) -> tuple[list[tuple[File, str]], list[Skipped]]:
    def digest(file: File) -> str | OSError:
        try:
            return sha256_of_file(file.path)
        except OSError as error:
            return error

    hashed: list[tuple[File, str]] = []
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
    hashed: Iterable[tuple[File, str]], labels: tuple[str, ...]
) -> tuple[list[Found], list[Skipped]]:
    copies: dict[str, list[File]] = defaultdict(list)
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
        found.append(Found(example, kept.split, kept.group))
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
