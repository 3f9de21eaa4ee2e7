"""Adding up what the export gate counted in each fold of a cross-validation: pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smidgen.bench.quantization.text_table import Table
from smidgen.export.errors import GateError
from smidgen.export.gate.paired import McNemar, Pairs, count_pairs, mcnemar
from smidgen.export.gate.verdicts import decide, images_needed
from smidgen.export.result import ExportedBundle
from smidgen.runtime.manifest import Verdict, VerdictWord


@dataclass(frozen=True)
class Pooled:
    """One kind of file over all folds.

    ``drop`` and its 95 % interval in points; ``changed`` answers; ``file_bytes`` are the means.
    """

    name: str
    folds: int
    pairs: Pairs
    changed: int
    file_bytes: int
    max_drop: float
    test: McNemar

    @property
    def drop(self) -> tuple[float, float, float]:
        """The drop of top-1 in points, and the ends of its interval (Tango's)."""
        low, high = self.pairs.interval()
        estimate = (self.pairs.lost - self.pairs.gained) / self.pairs.images
        return 100 * estimate, 100 * low, 100 * high

    @property
    def verdict(self) -> VerdictWord:
        """The gate's word on it."""
        _, low, high = self.drop
        return decide(low, high, self.max_drop)

    @property
    def needed(self) -> int | None:
        """About how many images would decide; None: over a million."""
        return images_needed(self.pairs, self.max_drop)


def pool(folds: Sequence[Sequence[ExportedBundle]], max_drop: float) -> list[Pooled]:
    """Each kind of file, counted over the ``folds`` in which it was made.

    Args:
        folds: what was exported in each fold; the images of the folds are different ones.
        max_drop: points of top-1 that a file may lose.

    Raises:
        GateError: a verdict without counts of lost and gained images, or without labels.
    """
    by_name: dict[str, list[ExportedBundle]] = defaultdict(list)
    for bundles in folds:
        for bundle in bundles:
            by_name[f"{bundle.scheme} .{bundle.model_format}"].append(bundle)
    return [_pooled(name, bundles, max_drop) for name, bundles in by_name.items()]


def _pooled(name: str, bundles: Sequence[ExportedBundle], max_drop: float) -> Pooled:
    before, after = (
        np.concatenate(sides)
        for sides in zip(*(_right_answers(bundle.verdict) for bundle in bundles))
    )
    return Pooled(
        name=name,
        folds=len(bundles),
        pairs=count_pairs(before, after),
        changed=sum(bundle.verdict.changed_answers for bundle in bundles),
        file_bytes=round(sum(bundle.file_bytes for bundle in bundles) / len(bundles)),
        max_drop=max_drop,
        test=mcnemar(before, after),
    )


def _right_answers(verdict: Verdict) -> tuple[np.ndarray, np.ndarray]:
    """Which images float model and file had right, ``(N,) bool`` each, in no particular order."""
    if verdict.lost is None or verdict.gained is None or verdict.truth != "labels":
        raise GateError("a fold was not judged by labels: export its Run again with this version")
    right = round(verdict.reference_top1_percent * verdict.images / 100)
    counts = (
        right - verdict.lost,
        verdict.lost,
        verdict.gained,
        verdict.images - right - verdict.gained,
    )
    before = np.repeat([True, True, False, False], counts)
    after = np.repeat([True, False, True, False], counts)
    return before, after


def pooled_table(rows: Sequence[Pooled]) -> Table:
    """A line for each kind of file."""
    headings = (
        "file",
        "bytes",
        "images",
        "float top-1, %",
        "top-1, %",
        "lost",
        "gained",
        "changed",
        "drop, points",
        "p",
        "allowed",
        "verdict",
    )
    return Table(headings, tuple(_cells(row) for row in rows))


def _cells(row: Pooled) -> tuple[str, ...]:
    pairs, (drop, low, high) = row.pairs, row.drop
    return (
        row.name,
        f"{row.file_bytes:,}",
        f"{pairs.images:,}",
        f"{100 * pairs.reference_right / pairs.images:.2f}",
        f"{100 * pairs.candidate_right / pairs.images:.2f}",
        str(pairs.lost),
        str(pairs.gained),
        str(row.changed),
        f"{drop:.2f} [{low:.2f}, {high:.2f}]",
        f"{row.test.exact:.2g}",
        f"{row.max_drop:g}",
        row.verdict,
    )
