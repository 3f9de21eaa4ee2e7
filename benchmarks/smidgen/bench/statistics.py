"""From raw samples to the few numbers of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROUNDS_FOR_AN_INTERVAL = 3
_RESAMPLES = 2000
_LOW_PERCENT, _HIGH_PERCENT = 2.5, 97.5

Samples = Sequence[Sequence[int]]
"""One sequence of samples in ns for each round; rounds may differ in length."""


@dataclass(frozen=True)
class Ratio:
    """A candidate's median over a reference's; ``low`` and ``high`` bound it with 95 % confidence.

    Without bounds (None) there were fewer than ``ROUNDS_FOR_AN_INTERVAL`` rounds: the number is
    then shown, but nothing is claimed with it.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def is_tie(self) -> bool:
        """Whether the interval leaves open which of the two is faster."""
        return self.low is not None and self.high is not None and self.low <= 1.0 <= self.high


def percentile_ms(samples: Samples, percent: float) -> float | None:
    """The ``percent`` percentile, in ms, over the samples of all rounds; None without samples."""
    pooled = _pooled(samples)
    return float(np.percentile(pooled, percent)) / 1e6 if pooled.size else None


def median_ratio(candidate: Samples, reference: Samples) -> Ratio | None:
    """The ratio of the pooled medians, with a percentile-bootstrap interval over the rounds.

    Round ``i`` of both was taken side by side, so both are resampled with the same rounds: what
    slowed a round as a whole cancels. The interval is deterministic (seed 0). With few rounds it is
    somewhat too narrow, as any bootstrap of few units.

    Returns None when either side has no samples or they have no rounds in common.
    """
    rounds = min(len(candidate), len(reference))
    candidate, reference = candidate[:rounds], reference[:rounds]
    if not rounds or not _pooled(candidate).size or not _pooled(reference).size:
        return None
    value = float(np.median(_pooled(candidate)) / np.median(_pooled(reference)))
    if rounds < ROUNDS_FOR_AN_INTERVAL:
        return Ratio(value, None, None)
    generator = np.random.default_rng(0)
    picks = generator.integers(0, rounds, size=(_RESAMPLES, rounds))
    ratios = _resampled_medians(candidate, picks) / _resampled_medians(reference, picks)
    low, high = np.percentile(ratios, (_LOW_PERCENT, _HIGH_PERCENT))
    return Ratio(value, float(low), float(high))


def _pooled(samples: Samples) -> npt.NDArray[np.float64]:
    return np.array([value for block in samples for value in block], dtype=np.float64)


def _resampled_medians(samples: Samples, picks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The median over the pooled rounds of each row of ``picks`` (resamples, rounds): (resamples,).

    Rounds of unequal length are filled up with NaN, which the median leaves out.
    """
    longest = max(len(block) for block in samples)
    table = np.full((len(samples), longest), np.nan)
    for row, block in zip(table, samples):
        row[: len(block)] = block
    medians: npt.NDArray[np.float64] = np.nanmedian(table[picks].reshape(len(picks), -1), axis=1)
    return medians
