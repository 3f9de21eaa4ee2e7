"""``samples.png``: a few training images of each class, as the network will get them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smidgen.train.data.dataset import SPLITS, Dataset, Example
from smidgen.train.seeing.canvas import DPI, class_names, drawn

if TYPE_CHECKING:
    from smidgen.train.pixels.source import PixelSource

MOST_ROWS = 20
COLUMNS = 10
_TILE, _GAP = 88, 4
_FRAME = 224  # of white pages
_NAME_CHARACTERS = 24
_MARGIN_INCHES = 2.1
_SHORT = {"train": "train", "validation": "val", "test": "test"}


def draw_samples(dataset: Dataset, pixels: PixelSource, path: Path) -> None:
    """Draw a row of training images for each class, or for 20 spread over all of them.

    In the orientation task a row is a turn, and its images are turned. Raises OutputError.
    """
    shown = shown_classes(len(dataset.labels))
    tiles = mosaic(dataset, pixels, shown)
    height, width = tiles.shape[:2]
    some = f"{len(shown)} of " if len(shown) < len(dataset.labels) else ""
    kind = "turns (degrees counter-clockwise)" if dataset.task == "orientation" else "classes"
    total = ", ".join(f"{len(dataset.split(name)):,} {name}" for name in SPLITS)
    title = f"training images of {some}{len(dataset.labels):,} {kind}\n{total}"
    size = (width / DPI + _MARGIN_INCHES, height / DPI + 0.6)
    with drawn(path, *size, title) as figure:
        axes = figure.subplots()
        axes.set_anchor("E")  # what is left over belongs to the names
        axes.imshow(tiles, interpolation="none")
        step = _TILE + _GAP
        axes.set_yticks(
            [step * row + _TILE / 2 for row in range(len(shown))], _captions(dataset, shown)
        )
        axes.set_xticks([])
        axes.tick_params(left=False, labelsize=8)
        axes.spines[:].set_visible(False)


def shown_classes(count: int) -> list[int]:
    """The classes that get a row: all, or 20 spread evenly."""
    if count <= MOST_ROWS:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, MOST_ROWS).round()]


def mosaic(dataset: Dataset, pixels: PixelSource, shown: list[int]) -> NDArray[np.uint8]:
    """A row of 92 pixels for each label, tiles of 88: ``(92 * len(shown), 920, 3) uint8``."""
    chosen = samples(dataset, shown)
    return np.concatenate([_row(chosen[label], pixels) for label in shown])


def samples(dataset: Dataset, labels: list[int]) -> dict[int, list[Example]]:
    """Up to ten training images of each label, the first ones in the order of the split."""
    chosen: dict[int, list[Example]] = defaultdict(list)
    wanted = set(labels)
    for example in dataset.train:
        if example.label in wanted and len(chosen[example.label]) < COLUMNS:
            chosen[example.label].append(example)
    return chosen


def _row(examples: list[Example], pixels: PixelSource) -> NDArray[np.uint8]:
    step = _TILE + _GAP
    row = np.full((step, step * COLUMNS, 3), 255, np.uint8)
    row[:, : step * len(examples)] = _FRAME
    squares = pixels.take(pixels.rows_of(examples)) if examples else ()
    for column, (example, square) in enumerate(zip(examples, squares, strict=True)):
        tile = Image.fromarray(np.ascontiguousarray(np.rot90(square, example.turn)))
        scaled = tile.resize((_TILE, _TILE), Image.Resampling.BICUBIC)
        row[:_TILE, step * column : step * column + _TILE] = np.asarray(scaled)
    return row


def _captions(dataset: Dataset, shown: list[int]) -> list[str]:
    labels = [dataset.labels[index] for index in shown]
    if dataset.task == "orientation":
        labels = [f"{label}°" for label in labels]
    names = class_names(labels, _NAME_CHARACTERS, shown)
    counts = {name: dataset.counts(name) for name in SPLITS}
    return [
        f"{name}\n" + "  ".join(f"{_SHORT[split]} {counts[split][index]:,}" for split in SPLITS)
        for name, index in zip(names, shown, strict=True)
    ]
