"""From raw samples to the few numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROUNDS_FOR_AN_INTERVAL = 3
_Z_975 = 1.959963984540054
_T_TABLE = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)

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

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.2f} [few rounds]"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def percentile_ms(samples: Samples, percent: float) -> float | None:
    """The ``percent`` percentile, in ms, over the samples of all rounds; None without samples."""
    pooled = _pooled(samples)
    return float(np.percentile(pooled, percent)) / 1e6 if pooled.size else None


def median_ratio(candidate: Samples, reference: Samples) -> Ratio | None:
    """The ratio of the rounds' medians (geometric mean), with its paired 95 % interval.

    Round ``i`` of both was taken side by side, so each round gives one ratio of medians, in which
    what slowed the round as a whole cancels. The interval is Student's t on the logarithms of
    these ratios: unlike a bootstrap it keeps its coverage with as few as three rounds.

    Returns None when no round has samples of both.
    """
    logs = np.log(
        [
            np.median(ours) / np.median(theirs)
            for ours, theirs in zip(candidate, reference)
            if len(ours) and len(theirs)
        ]
    )
    if not logs.size:
        return None
    mean = float(logs.mean())
    if logs.size < ROUNDS_FOR_AN_INTERVAL:
        return Ratio(math.exp(mean), None, None)
    margin = _student_t(logs.size - 1) * float(logs.std(ddof=1)) / math.sqrt(logs.size)
    return Ratio(math.exp(mean), math.exp(mean - margin), math.exp(mean + margin))


def _student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: Cornish-Fisher beyond the table, error below 0.003.

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.5 and table 26.10.
    """
    if degrees <= len(_T_TABLE):
        return _T_TABLE[degrees - 1]
    z = _Z_975
    first = (z**3 + z) / 4 / degrees
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96 / degrees**2
    return z + first + second


def _pooled(samples: Samples) -> npt.NDArray[np.float64]:
    return np.array([value for block in samples for value in block], dtype=np.float64)
