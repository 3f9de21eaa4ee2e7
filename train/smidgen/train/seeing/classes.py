"""``classes.png``: recall of each class with its interval, and precision; the worst first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smidgen.train.seeing.canvas import BLUE, GREY, class_names, drawn
from smidgen.train.seeing.evaluation import Evaluation

_MOST_SHOWN = 100


def draw_classes(result: Evaluation, path: Path, title: str) -> None:
    """Draw ``result.classes`` that have images, at most the 100 of the lowest recall.

    Raises OutputError.
    """
    names = class_names(result.labels, 40)
    known = [
        (item.recall_percent, names[index], item)
        for index, item in enumerate(result.classes)
        if item.recall_percent is not None
    ]
    known = sorted(known, key=lambda entry: entry[0])[:_MOST_SHOWN]
    recall = np.array([entry[0] for entry in known])
    low = np.array([entry[2].recall_low_percent for entry in known], float)
    high = np.array([entry[2].recall_high_percent for entry in known], float)
    rows = np.arange(len(known))
    if len(known) < len(result.classes):
        title = f"{title}\nthe {len(known)} classes of the lowest recall of {len(result.classes)}"
    with drawn(path, 9, 1.9 + 0.26 * len(known), title) as figure:
        axes = figure.subplots()
        axes.barh(rows, recall, color=BLUE, alpha=0.75, height=0.72, label="recall")
        error = np.abs(np.stack([recall - low, high - recall]))
        axes.errorbar(recall, rows, xerr=error, fmt="none", ecolor="black", elinewidth=0.9,
                      capsize=2, label="its 95 % interval")  # fmt: skip
        precision = [entry[2].precision_percent or 0.0 for entry in known]
        axes.plot(precision, rows, "D", ms=4.5, color="white", mec="black", clip_on=False, zorder=3,
                  label="precision")  # fmt: skip
        axes.set_yticks(rows, [entry[1] for entry in known], fontsize=8)
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("%")
        axes.grid(axis="x", alpha=0.3)
        counts = axes.secondary_yaxis("right")
        counts.set_yticks(rows, [f"{entry[2].images:,}" for entry in known], fontsize=8, color=GREY)
        counts.set_ylabel("images", color=GREY)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
