"""Dealing a folder's images over folds: each image is the test image of exactly one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from smidgen.runtime.files import output_error, write_text
from smidgen.train.data import Inventory, Split, position
from smidgen.train.data.near_duplicates import near_duplicates
from smidgen.train.data.scan import take_inventory
from smidgen.train.data.splits import FEWEST_TOO_MANY, LARGEST_SHARE
from smidgen.train.errors import DataError
from smidgen.train.pixels import ReferenceDecoder, open_pixels
from smidgen.train.progress import Progress
from smidgen.train.recipe import DataRecipe

VALIDATION_SHARE = 0.1
"""Of the images that are not tested on; these choose the best epoch."""

_SIDE = 128


@dataclass(frozen=True)
class Dealt:
    """One image (absolute ``path``, ``label``), the fold it is tested in, and how it is used else.

    ``chooses``: in the folds in which it is not tested, it belongs to the validation split.
    """

    path: str
    label: str
    fold: int
    chooses: bool

    def split(self, fold: int) -> Split:
        """Where the image lies in ``fold``."""
        if fold == self.fold:
            return "test"
        return "validation" if self.chooses else "train"


def deal(
    inventory: Inventory, folds: int, together: Iterable[Sequence[str]] = ()
) -> tuple[Dealt, ...]:
    """Deal the images of ``inventory`` over ``folds`` by content hash; ready splits are joined.

    Args:
        inventory: the distinct images.
        folds: 2 and more.
        together: clusters of SHA-256 of images that look the same; each is dealt as one, unless it
            is so large that ``divide`` would not keep it together either.

    Raises:
        DataError: a fold without test or validation images.
    """
    largest = max(FEWEST_TOO_MANY, LARGEST_SHARE * len(inventory.found))
    clusters = [cluster for cluster in together if len(cluster) <= largest]
    key_of = {sha256: min(cluster) for cluster in clusters for sha256 in cluster}
    dealt = []
    for item in sorted(inventory.found, key=lambda item: item.example.sha256):
        example = item.example
        key = key_of.get(example.sha256, example.sha256)
        dealt.append(
            Dealt(
                example.path,
                inventory.labels[example.label],
                int(folds * position(key, "fold")),
                position(key, "fold validation") < VALIDATION_SHARE,
            )
        )
    for fold in range(folds):
        splits = {image.split(fold) for image in dealt}
        if len(splits) < 3:
            raise DataError(
                f"{len(dealt)} images in {folds} folds leave a split of fold {fold} empty: add "
                "images, or take fewer folds"
            )
    return tuple(dealt)


def write_lists(folder: Path, into: Path, folds: int, progress: Progress) -> list[Path]:
    """Deal the images of ``folder`` and write ``index.csv`` for each fold; the folders they lie in.

    Near-duplicates, looked for at 128 px, stay together.

    Raises:
        DataError: ``folder`` holds no classes, or too few images.
        OutputError: ``into`` cannot be written.
    """
    recipe = DataRecipe(folder=str(folder), image_size=_SIDE)
    inventory = take_inventory(folder, recipe)
    examples = [item.example for item in inventory.found]
    pixels = open_pixels(examples, ReferenceDecoder(recipe.preprocessing()), progress)
    dealt = deal(inventory.without(pixels.unreadable), folds, near_duplicates(examples, pixels))
    places = [into / f"fold-{fold}" for fold in range(folds)]
    for fold, place in enumerate(places):
        _make(place)
        write_text(place / "index.csv", _index(dealt, fold))
    return places


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _index(dealt: Sequence[Dealt], fold: int) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    writer.writerows((image.path, image.label, image.split(fold)) for image in dealt)
    return stream.getvalue()
