"""``curves.png``: loss, accuracy and learning rate of every epoch, and of every step if known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from smidgen.train.run import EpochMetrics, best_epoch
from smidgen.train.seeing.canvas import BLUE, GREEN, GREY, RED, drawn
from smidgen.train.seeing.step_log import StepMetrics

_MOST_POINTS = 1500
_PALE = "#c9d1d9"


@dataclass(frozen=True)
class Schedule:
    """What the curves should say beside the numbers.

    ``epochs`` counts the planned epochs of each stage: one that has fewer was stopped early.
    ``ema`` is the share of past weights that the average keeps (0: none); validation is of it.
    """

    epochs: Mapping[str, int] = field(default_factory=dict)
    ema: float = 0.0


def draw_curves(
    rows: Sequence[EpochMetrics],
    path: Path,
    title: str,
    steps: Sequence[StepMetrics] = (),
    schedule: Schedule | None = None,
) -> None:
    """Draw the epochs in order, with a line where each stage begins and a mark on the best epoch.

    Args:
        rows: at least one epoch.
        path: the PNG file.
        title: stands above the three panels.
        steps: loss and learning rate of each step, drawn behind those of the epochs.
        schedule: marks stages that were stopped early, and averaged weights.

    Raises:
        OutputError: the file cannot be written.
    """
    schedule = schedule or Schedule()
    with drawn(path, 13, 4.0, title) as figure:
        loss, accuracy, rate = figure.subplots(1, 3)
        _draw_loss(loss, rows, steps, schedule)
        _draw_accuracy(accuracy, rows)
        _draw_rate(rate, rows, steps)
        for axes in (loss, accuracy, rate):
            axes.set_xlabel("epoch")
            axes.set_xlim(0 if steps else 0.5, len(rows) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(alpha=0.3)
            _mark_stages(axes, rows, schedule)
        loss.legend(frameon=False, fontsize=8, loc="upper right")
        accuracy.legend(frameon=False, fontsize=8, loc="lower right")


def _draw_loss(
    axes: Any, rows: Sequence[EpochMetrics], steps: Sequence[StepMetrics], schedule: Schedule
) -> None:
    if steps:
        x, y = _thinned(_places(steps, rows), np.array([step.loss for step in steps]))
        axes.plot(x, y, color=_PALE, lw=0.8, label="training, each step")
    epochs = range(1, len(rows) + 1)
    validation = "validation"
    if schedule.ema:
        validation += f" (averaged weights, {schedule.ema:g})"
    axes.plot(epochs, [r.loss for r in rows], "o-", ms=3, color=GREY, label="training")
    axes.plot(epochs, [r.val_loss for r in rows], "o-", ms=3, color=BLUE, label=validation)
    axes.set_title("loss (training: augmented, smoothed labels)")
    axes.set_ylim(bottom=0, top=_top_of_loss(rows, steps))


def _draw_accuracy(axes: Any, rows: Sequence[EpochMetrics]) -> None:
    epochs = range(1, len(rows) + 1)
    axes.plot(epochs, [100 * r.top1 for r in rows], "o-", ms=3, color=GREY)
    axes.plot(epochs, [100 * r.val_top1 for r in rows], "o-", ms=3, color=BLUE)
    best = best_epoch(rows)
    top1 = 100 * rows[best].val_top1
    axes.plot([best + 1], [top1], "o", ms=9, mfc="none", mec=GREEN, mew=1.5,
              label=f"kept: epoch {best + 1}, validation {top1:.2f} %")  # fmt: skip
    axes.set_title("top-1, %")


def _draw_rate(axes: Any, rows: Sequence[EpochMetrics], steps: Sequence[StepMetrics]) -> None:
    if steps:
        rates = np.array([step.learning_rate for step in steps])
        x, y = _thinned(_places(steps, rows), rates)
        axes.plot(x, y, color=BLUE, lw=1.2)
        axes.set_title("learning rate")
    else:
        rates = np.array([r.learning_rate for r in rows])
        axes.plot(range(1, len(rows) + 1), rates, "o-", ms=3, color=BLUE)
        axes.set_title("learning rate at the end of the epoch")
    if (rates > 0).any():
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter("{x:g}")


def _mark_stages(axes: Any, rows: Sequence[EpochMetrics], schedule: Schedule) -> None:
    """A line and a name where each stage begins, a red end where one was stopped early."""
    where = axes.get_xaxis_transform()
    done = 0
    stages = [(name, len(list(group))) for name, group in groupby(rows, lambda row: row.stage)]
    for name, count in stages:
        if done:
            axes.axvline(done + 0.5, color="black", lw=0.8, ls=":")
        planned = schedule.epochs.get(name, count)
        is_early = count < planned
        if is_early:
            axes.axvline(done + count + 0.25, color=RED, lw=1.0, ls="--")
        if len(stages) > 1 or is_early:
            early = f", stopped after {count} of {planned}" if is_early else ""
            axes.text(done + 0.6, 1.0, f"{name}{early}", fontsize=7, va="bottom", transform=where,
                      color=RED if is_early else "black")  # fmt: skip
            axes.set_title(axes.get_title(), pad=14)
        done += count


def _places(steps: Sequence[StepMetrics], rows: Sequence[EpochMetrics]) -> np.ndarray:
    """Where each step stands on the axis of epochs: the last of epoch n at n; ``(len(steps),)``."""
    number = {(row.stage, row.epoch): index for index, row in enumerate(rows)}
    keys = [(step.stage, step.epoch) for step in steps]
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(keys)) if a != b), len(keys)]
    places = np.empty(len(steps))
    for first, end in pairwise(starts):
        index = number.get(keys[first], len(rows))
        places[first:end] = index + np.arange(1, end - first + 1) / (end - first)
    return places


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbouring points where there are more than can be seen."""
    size = -(-len(x) // _MOST_POINTS)
    cuts = np.arange(0, len(x), size)
    counts = np.diff(np.append(cuts, len(x)))
    return np.add.reduceat(x, cuts) / counts, np.add.reduceat(y, cuts) / counts


def _top_of_loss(rows: Sequence[EpochMetrics], steps: Sequence[StepMetrics]) -> float:
    """Above every epoch and nearly every step: single wild steps may be cut off."""
    largest = max(max(row.loss, row.val_loss) for row in rows)
    if steps:
        largest = max(largest, float(np.quantile([step.loss for step in steps], 0.98)))
    return 1.08 * largest or 1.0
