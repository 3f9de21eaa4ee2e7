"""``mistakes.png``: the wrong answers of which the network was surest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.train.seeing.canvas import GREEN, GREY, RED, class_names, drawable, drawn
from smidgen.train.seeing.predictions import Answers

MOST_SHOWN = 24
_COLUMNS = 6
_TILE_INCHES = 2.1
_GAP_INCHES = 0.12
_TEXT_INCHES = 0.45
_TITLE_INCHES = 0.65

Take = Callable[[np.ndarray], np.ndarray]
"""``take(positions)``: ``(len(positions), S, S, 3) uint8`` as the network saw them."""


def draw_mistakes(answers: Answers, take: Take, path: Path, title: str) -> None:
    """Draw the 24 worst of the wrong answers, or say that there is none. Raises OutputError."""
    wrong = answers.wrong
    shown = wrong[:MOST_SHOWN]
    if not len(shown):
        _draw_none(path, title, len(answers.labels))
        return
    pixels = take(shown)
    columns = min(_COLUMNS, max(3, len(shown)))
    names = class_names(answers.names, 19)
    total = f"{len(wrong):,} of {len(answers.labels):,} images answered wrongly"
    kept = f"; the {len(shown)} of the highest probability" if len(shown) < len(wrong) else ""
    width = columns * _TILE_INCHES
    height = _TITLE_INCHES + -(-len(shown) // columns) * (_TILE_INCHES + _TEXT_INCHES)
    with drawn(path, width, height, f"{title}\n{total}{kept}") as figure:
        figure.set_layout_engine("none")
        for index, (position, image) in enumerate(zip(shown, pixels, strict=True)):
            row, column = divmod(index, columns)
            left = column * _TILE_INCHES + _GAP_INCHES / 2
            top = _TITLE_INCHES + row * (_TILE_INCHES + _TEXT_INCHES)
            side = _TILE_INCHES - _GAP_INCHES
            box = (left / width, 1 - (top + side) / height, side / width, side / height)
            _draw_tile(figure.add_axes(box), image, answers, int(position), names)


def _draw_tile(
    axes: Any, image: np.ndarray, answers: Answers, position: int, names: tuple[str, ...]
) -> None:
    predicted, label = int(answers.predicted[position]), int(answers.labels[position])
    percent = 100 * float(answers.probability[position])
    axes.axis("off")
    axes.imshow(image, interpolation="nearest")
    lines = (
        (f"true: {names[label]}", GREEN),
        (f"answer, {percent:.1f} %: {names[predicted]}", RED),
        (drawable(Path(answers.paths[position]).name, 28), GREY),
    )
    for index, (text, colour) in enumerate(lines):
        axes.annotate(text, (0.5, 0), (0, -3 - 9.5 * index), xycoords="axes fraction", fontsize=7,
                      textcoords="offset points", ha="center", va="top", color=colour)  # fmt: skip


def _draw_none(path: Path, title: str, images: int) -> None:
    with drawn(path, 8, 2.4, title) as figure:
        axes = figure.subplots()
        axes.axis("off")
        axes.text(0.5, 0.5, f"no mistake: all {images:,} images were answered rightly",
                  ha="center", va="center", fontsize=12, color=GREEN)  # fmt: skip
