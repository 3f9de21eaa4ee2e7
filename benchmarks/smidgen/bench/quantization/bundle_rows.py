"""From scores, sizes and timings of Bundles to the rows of one table: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smidgen.bench.quantization.text_table import Table
from smidgen.bench.statistics import Ratio, median_ratio, percentile_ms
from smidgen.export.errors import GateError
from smidgen.export.gate.verdicts import JudgedImages, Limits, judge_scores
from smidgen.runtime.manifest import Verdict


@dataclass(frozen=True)
class Observed:
    """What was seen of one Bundle.

    ``scores``: ``(N, classes) float32`` probabilities in its own runtime, or None.
    ``inference_ns``: samples of each round, empty where it was not timed. ``failures``: one line
    each.
    """

    file: str
    data_bytes: int
    zipped_bytes: int
    scores: NDArray[np.float32] | None = field(default=None, repr=False)
    inference_ns: tuple[tuple[int, ...], ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class BundleRow:
    """One Bundle beside the baselines: shares are of the second baseline's bytes and time."""

    file: str
    data_bytes: int
    bytes_share: float
    zipped_bytes: int
    zipped_share: float
    inference_ms: float | None
    ratio: Ratio | None
    verdict: Verdict | None
    failures: tuple[str, ...]


def rows_of(
    observed: Sequence[Observed],
    cost_baseline: int,
    images: JudgedImages,
    limits: Mapping[str, float],
) -> list[BundleRow]:
    """The rows, in the order given.

    Args:
        observed: the first one's answers are what the others' are compared with.
        cost_baseline: the index of the one whose bytes and time are 100 %.
        images: the judged images.
        limits: allowed drop of top-1 in points for each file.
    """
    return [
        _row(one, observed[0], observed[cost_baseline], images, limits[one.file])
        for one in observed
    ]


def _row(
    one: Observed, first: Observed, cost: Observed, images: JudgedImages, max_drop: float
) -> BundleRow:
    failures = one.failures
    verdict = None
    if one.scores is not None and first.scores is not None:
        try:
            verdict, _ = judge_scores(
                first.scores, one.scores, images=images, limits=Limits(max_drop)
            )
        except GateError as error:
            failures = (*failures, str(error))
    return BundleRow(
        file=one.file,
        data_bytes=one.data_bytes,
        bytes_share=one.data_bytes / cost.data_bytes,
        zipped_bytes=one.zipped_bytes,
        zipped_share=one.zipped_bytes / cost.zipped_bytes,
        inference_ms=percentile_ms(one.inference_ns, 50),
        ratio=None if one is cost else median_ratio(one.inference_ns, cost.inference_ns),
        verdict=verdict,
        failures=failures,
    )


def table_of(rows: Sequence[BundleRow]) -> Table:
    """A line for each row; the first is the one that answers are compared with."""
    headings = (
        "Bundle",
        "bytes",
        "% of",
        "zipped",
        "% of",
        "ms",
        "x time",
        "top-1, %",
        "drop, points",
        "allowed",
        "verdict",
    )
    return Table(headings, tuple(_cells(row, is_first=row is rows[0]) for row in rows))


def notes_of(rows: Sequence[BundleRow], cost_baseline: int) -> list[str]:
    """What the columns mean, and what failed, a line each."""
    cost = rows[cost_baseline].file
    images = next((row.verdict.images for row in rows if row.verdict), 0)
    failures = [f"FAILED {row.file}: {failure}" for row in rows for failure in row.failures]
    return [
        f"% of, x time: of {cost}'s bytes, gzip's bytes (level 9) and time [95 %];",
        "ms: median of one inference; the Bundles took turns, in fresh processes;",
        f"drop: points of top-1 lost against {rows[0].file} on {images} images [95 %], and the",
        "gate's verdict on it with the allowed drop.",
        *failures,
    ]


def _cells(row: BundleRow, *, is_first: bool) -> tuple[str, ...]:
    verdict = row.verdict
    return (
        row.file,
        f"{row.data_bytes:,}",
        f"{100 * row.bytes_share:.1f}",
        f"{row.zipped_bytes:,}",
        f"{100 * row.zipped_share:.1f}",
        "-" if row.inference_ms is None else f"{row.inference_ms:.2f}",
        "-" if row.inference_ms is None else str(row.ratio or "1"),
        "-" if verdict is None else f"{verdict.top1_percent:.2f}",
        "-" if verdict is None or is_first else _drop(verdict),
        "-" if verdict is None or is_first else f"{verdict.max_drop_points:g}",
        "-" if verdict is None or is_first else verdict.verdict,
    )


def _drop(verdict: Verdict) -> str:
    low, high = verdict.drop_low_points, verdict.drop_high_points
    return f"{verdict.drop_points:.2f} [{low:.2f}, {high:.2f}]"
