"""``calibration.png``: the reliability diagram (DeGroot and Fienberg 1983; Guo et al. 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smidgen.train.seeing.canvas import BLUE, GREY, RED, drawn
from smidgen.train.seeing.evaluation import Evaluation, ReliabilityBin


def draw_calibration(result: Evaluation, path: Path, title: str) -> None:
    """Draw ``result.reliability``: accuracy against probability, and how many images stand where.

    Raises OutputError.
    """
    with drawn(path, 6.2, 6.6, title) as figure:
        diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        filled = [item for item in result.reliability if item.images]
        _draw_diagram(diagram, filled)
        diagram.set_title(
            f"expected calibration error {result.calibration_error_percent:.2f} % "
            f"({len(result.reliability)} bins), negative log likelihood {result.loss:.4f}"
        )
        for item in filled:
            histogram.bar(_middle(item), item.images, _width(item), color=GREY, edgecolor="white")
        histogram.set_yscale("symlog", linthresh=1)
        histogram.yaxis.set_major_formatter("{x:,.0f}")
        histogram.set_ylim(bottom=0)
        histogram.set_ylabel("images")
        histogram.set_xlabel("probability of the answer, %")
        histogram.set_xlim(0, 100)
        for axes in (diagram, histogram):
            axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)


def _draw_diagram(axes: Any, filled: list[ReliabilityBin]) -> None:
    for item in filled:
        accuracy, confidence = 100 * (item.accuracy or 0.0), 100 * (item.confidence or 0.0)
        is_first = item is filled[0]
        axes.bar(_middle(item), accuracy, _width(item), color=BLUE, edgecolor="white",
                 label="answered rightly" if is_first else None)  # fmt: skip
        axes.bar(_middle(item), confidence - accuracy, _width(item), bottom=accuracy, hatch="///",
                 facecolor="none", edgecolor=RED, lw=0.8,
                 label="gap to the probability" if is_first else None)  # fmt: skip
    axes.plot([0, 100], [0, 100], color="black", lw=0.9, ls="--", label="perfectly calibrated")
    axes.set_ylim(0, 100)
    axes.set_ylabel("answered rightly, %")


def _middle(item: ReliabilityBin) -> float:
    return 50 * (item.low + item.high)


def _width(item: ReliabilityBin) -> float:
    return 100 * (item.high - item.low)
