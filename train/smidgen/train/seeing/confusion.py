"""``confusion.png``: how often each class was answered with each, and what is confused most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import PowerNorm

from smidgen.train.seeing.canvas import class_names, drawn, luminance
from smidgen.train.seeing.evaluation import Evaluation

_MOST_WITH_PERCENT = 12
_MOST_WITH_COUNTS = 25
_MOST_NAMED = 130
_PAIRS_SHOWN = 20


def draw_confusion(result: Evaluation, path: Path, title: str) -> None:
    """Draw ``result.confusion``: colour is the share of the row's (true) class.

    Cells show count and row percent up to 12 classes, the count up to 25, nothing beyond; then the
    pairs that are confused most stand beside the matrix. Raises OutputError.
    """
    counts = np.array(result.confusion, np.int64)
    classes = len(counts)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = class_names(result.labels, 28 if classes <= _MOST_WITH_PERCENT else 20)
    side = float(np.clip(2.2 + 0.62 * classes, 5.0, 12.5))
    has_list = classes > _MOST_WITH_PERCENT
    if result.orientation is not None:
        title = f"{title}\n{orientation_line(result)}"
    with drawn(path, side + 1.2 + 4.2 * has_list, side, title) as figure:
        ratios = [side, 4.2] if has_list else [1.0]
        panels = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
        norm = PowerNorm(0.5, 0, 100)  # the root shows small shares, which are what matters
        image = panels[0].imshow(shares, cmap="Blues", norm=norm, aspect="equal")
        _name_axes(panels[0], names, side)
        _write_cells(panels[0], counts, shares, colormaps["Blues"](norm(shares)))
        bar = figure.colorbar(
            image, ax=panels[0], shrink=0.5, pad=0.02, ticks=[0, 1, 5, 10, 25, 50, 75, 100]
        )
        bar.set_label("% of the true class", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        if has_list:
            _list_pairs(panels[1], counts, names)


def orientation_line(result: Evaluation) -> str:
    """The kinds of wrong turns, in one line."""
    errors = result.orientation
    if errors is None:
        return ""
    return (
        f"0\N{LEFT RIGHT ARROW}180: {errors.half_turn_0_180:,} "
        f"({errors.half_turn_0_180_percent:.2f} %), "
        f"90\N{LEFT RIGHT ARROW}270: {errors.half_turn_90_270:,} "
        f"({errors.half_turn_90_270_percent:.2f} %), "
        f"a quarter turn off: {errors.quarter_turn:,} ({errors.quarter_turn_percent:.2f} %)"
    )


def _name_axes(axes: Any, names: tuple[str, ...], side: float) -> None:
    classes = len(names)
    size = min(9.0, 40 * side / classes)  # a row is about 55 points times side / classes high
    places = range(classes)
    if classes > _MOST_NAMED:
        axes.set_xlabel(f"answered (one of {classes} classes)")
        axes.set_ylabel("true class")
        return
    is_short = max(map(len, names)) <= 4
    axes.set_xticks(places, names, fontsize=size, rotation=0 if is_short else 60,
                    ha="center" if is_short else "right", rotation_mode="anchor" if not is_short
                    else None)  # fmt: skip
    axes.set_yticks(places, names, fontsize=size)
    axes.set_xlabel("answered")
    axes.set_ylabel("true class")
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=0.4 if classes > _MOST_WITH_COUNTS else 1.0)
    axes.tick_params(which="minor", length=0)


def _write_cells(axes: Any, counts: np.ndarray, shares: np.ndarray, colours: np.ndarray) -> None:
    classes = len(counts)
    if classes > _MOST_WITH_COUNTS:
        return
    is_dark = luminance(colours) < 0.5
    for i, j in np.ndindex(classes, classes):
        text = f"{counts[i, j]:,}" if counts[i, j] or classes <= _MOST_WITH_PERCENT else ""
        if text and classes <= _MOST_WITH_PERCENT:
            text += f"\n{shares[i, j]:.1f} %"
        colour = "white" if is_dark[i, j] else ("black" if counts[i, j] else "#8a8f98")
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7.5)


def _list_pairs(axes: Any, counts: np.ndarray, names: tuple[str, ...]) -> None:
    """The largest cells off the diagonal, as text."""
    axes.axis("off")
    axes.set_title("confused most", loc="left")
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS_SHOWN]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    pairs = [(i, j) for i, j in pairs if wrong[i, j]]
    numbers = [f"{wrong[i, j]:,} of {counts[i].sum():,}" for i, j in pairs]
    texts = [f"{names[i]} \N{RIGHTWARDS ARROW} {names[j]}" for i, j in pairs]
    for x, lines, side in ((0.24, numbers or ["nothing"], "right"), (0.28, texts, "left")):
        axes.text(x, 0.99, "\n".join(lines), ha=side, multialignment=side, va="top", fontsize=8,
                  linespacing=1.7, transform=axes.transAxes)  # fmt: skip
