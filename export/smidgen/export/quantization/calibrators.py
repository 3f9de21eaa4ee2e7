"""From the values that an activation takes to the range that its 256 codes cover.

Every calibrator takes a ``Histogram`` and gives ``(low, high)`` with ``low <= 0 <= high``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from smidgen.export.quantization.histogram import Histogram
from smidgen.export.recipe import QuantizationRecipe

Range = tuple[float, float]
Calibrator = Callable[[Histogram], Range]

STEPS = 255
"""Between the 256 codes."""

_CANDIDATES = 64
_NARROWEST = 0.1
"""Smallest share of a side of the range that is tried."""


def calibrator_of(settings: QuantizationRecipe) -> Calibrator:
    """The calibrator that a recipe names."""
    if settings.calibrator == "percentile":
        share = settings.percentile
        return lambda histogram: percentile(histogram, share)
    return {"min-max": min_max, "entropy": entropy, "mse": least_square_error}[settings.calibrator]


def min_max(histogram: Histogram) -> Range:
    """All values seen."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, share: float) -> Range:
    """The range that leaves out ``(100 - share) / 2`` percent of the nonzero values at each end.

    Where all values are of one sign, all that is left out is at the other end.
    """
    total = int(histogram.counts.sum())
    if total == 0:
        return min_max(histogram)
    ends = (histogram.low < 0) + (histogram.high > 0)
    outside = total * (100 - share) / 100 / max(1, ends)
    running = np.cumsum(histogram.counts)
    edges = np.append(histogram.centers - histogram.width / 2, histogram.centers[-1])
    low = edges[int(np.searchsorted(running, outside, side="right"))]
    high = edges[int(np.searchsorted(running, total - outside, side="left")) + 1]
    return max(histogram.low, min(0.0, low)), min(histogram.high, max(0.0, high))


def entropy(histogram: Histogram) -> Range:
    """The clipping that loses least information (Migacz, 8-bit inference with TensorRT, 2017).

    For each candidate ``T`` the values are clipped to ``[-T, T]``, put into 128 levels of equal
    width by their size, and compared with the clipped values by Kullback-Leibler divergence; each
    level's mass is spread evenly over its bins that are not empty.
    """
    sizes = histogram.counts[histogram.counts.size // 2 :].astype(np.float64)
    sizes = sizes + histogram.counts[: histogram.counts.size // 2][::-1]
    used = int(np.flatnonzero(sizes)[-1]) + 1 if sizes.any() else 0
    if used <= 128:
        return min_max(histogram)
    stops = np.unique(np.linspace(128, used, 256).astype(int))
    losses = [_divergence(sizes, int(stop)) for stop in stops]
    best = float(stops[int(np.argmin(losses))]) * histogram.width
    return max(histogram.low, -best), min(histogram.high, best)


def _divergence(sizes: NDArray[np.float64], stop: int) -> float:
    reference = sizes[:stop].copy()
    kept = reference.copy()
    reference[-1] += sizes[stop:].sum()
    level = np.arange(stop) * 128 // stop
    mass = np.bincount(level, weights=kept, minlength=128)
    filled = np.bincount(level, weights=reference > 0, minlength=128)
    spread = np.where(reference > 0, mass[level] / np.maximum(1, filled[level]), 0)
    if spread.sum() == 0:
        return np.inf
    p, q = reference / reference.sum(), spread / spread.sum()
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / np.maximum(q[held], 1e-12))))


def least_square_error(histogram: Histogram) -> Range:
    """The range with the least expected squared error of a value, over all pairs of ends.

    A value inside is off by ``step^2 / 12`` on average, one outside by its distance to the end;
    zero is exact. Each end is tried at 64 places between a tenth and all of what was seen.
    """
    counts = histogram.counts.astype(np.float64)
    total = counts.sum()
    if total == 0 or histogram.width == 0:
        return min_max(histogram)
    lows = histogram.low * np.linspace(1, _NARROWEST, _CANDIDATES if histogram.low < 0 else 1)
    highs = histogram.high * np.linspace(1, _NARROWEST, _CANDIDATES if histogram.high > 0 else 1)
    above, count_above = _clipping(histogram.centers, counts, highs)
    below, count_below = _clipping(-histogram.centers[::-1], counts[::-1], -lows)
    step = (highs[np.newaxis] - lows[:, np.newaxis]) / STEPS
    inside = total - count_above[np.newaxis] - count_below[:, np.newaxis]
    error = above[np.newaxis] + below[:, np.newaxis] + inside * step**2 / 12
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[row]), float(highs[column])


def _clipping(
    centers: NDArray[np.float64], counts: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared error and number of the values above each of ``ends``; ``centers`` ascend."""
    tails = [np.append(np.cumsum((counts * centers**power)[::-1])[::-1], 0.0) for power in range(3)]
    at = np.searchsorted(centers, ends, side="right")
    number, first, second = (tail[at] for tail in tails)
    return np.maximum(0.0, second - 2 * ends * first + ends**2 * number), number
