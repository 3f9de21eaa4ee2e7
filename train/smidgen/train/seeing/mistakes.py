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
    rows = -(-len(shown) // columns)
    names = class_names(answers.names, 22)
    total = f"{len(wrong):,} of {len(answers.labels):,} images answered wrongly"
    kept = f"; the {len(shown)} of the highest probability" if len(shown) < len(wrong) else ""
    height = 0.8 + (_TILE_INCHES + 0.5) * rows
    with drawn(path, _TILE_INCHES * columns, height, f"{title}\n{total}{kept}") as figure:
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in panels:
            axes.axis("off")
        for axes, position, image in zip(panels, shown, pixels, strict=False):
            _draw_tile(axes, image, answers, int(position), names)


def _draw_tile(
    axes: Any, image: np.ndarray, answers: Answers, position: int, names: tuple[str, ...]
) -> None:
    predicted, label = int(answers.predicted[position]), int(answers.labels[position])
    percent = 100 * float(answers.probability[position])
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
