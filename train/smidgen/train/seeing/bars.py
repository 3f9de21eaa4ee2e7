"""Pictures beside bar charts of their probabilities, for ``smidgen predict --picture``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.train.seeing.canvas import BLUE, GREY, class_names, drawable, drawn

MOST_ON_A_SHEET = 60
_PICTURE_INCHES = 2.3
_CHART_INCHES = 3.4


@dataclass(frozen=True)
class Answer:
    """One picture and what was said of it.

    ``pixels`` is ``(H, W, 3) uint8`` RGB of any size; ``labels`` are the best classes, best first,
    with their ``numbers`` in the network's outputs and their ``probabilities``, 0..1; ``name``
    stands above.
    """

    name: str
    pixels: np.ndarray
    labels: tuple[str, ...]
    numbers: tuple[int, ...]
    probabilities: tuple[float, ...]


def draw_answers(answers: Sequence[Answer], path: Path) -> None:
    """Draw 1 to ``MOST_ON_A_SHEET`` answers into one PNG: up to 3 in a column, then side by side.

    Raises OutputError where the file cannot be written.
    """
    columns = 1 if len(answers) <= 3 else 2 if len(answers) <= 12 else 3
    rows = -(-len(answers) // columns)
    most = max(len(answer.labels) for answer in answers)
    height = max(_PICTURE_INCHES, 0.5 + 0.3 * most)
    width = columns * (_PICTURE_INCHES + _CHART_INCHES)
    with drawn(path, width, rows * height) as figure:
        ratios = [_PICTURE_INCHES, _CHART_INCHES] * columns
        panels = figure.subplots(rows, 2 * columns, width_ratios=ratios, squeeze=False)
        for axes in panels.flat:
            axes.axis("off")
        for answer, (picture, chart) in zip(answers, panels.reshape(-1, 2), strict=False):
            picture.imshow(answer.pixels)
            picture.set_title(drawable(answer.name, 26), fontsize=8)
            _draw_bars(chart, answer)


def _draw_bars(axes: Any, answer: Answer) -> None:
    axes.axis("on")
    rows = range(len(answer.labels))
    percents = [100 * probability for probability in answer.probabilities]
    colours = [BLUE if row == 0 else GREY for row in rows]
    axes.barh(rows, percents, color=colours, height=0.62)
    for row, percent in zip(rows, percents, strict=True):
        axes.text(percent + 1.5, row, f"{percent:.1f} %", va="center", fontsize=8)
    axes.set_yticks(rows, class_names(answer.labels, 26, answer.numbers), fontsize=8)
    axes.set_ylim(max(len(answer.labels), 3) - 0.4, -0.6)
    axes.set_xlim(0, 118)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
