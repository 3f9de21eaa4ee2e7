"""What is kept of the values of one activation tensor over many images: a few kilobytes.

``Histogram`` counts values in bins whose width is a power of two and doubles when a value lies
outside, so that no value is ever out of range and the order of images hardly matters. Exact zeros
are counted apart: zero is a code of its own under every scale, without any error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HALF = 2048
"""Bins on each side of zero."""

_MOST_VALUES = 1 << 16
"""Of one image and tensor that are put into bins; minimum, maximum and channels see all."""


class Histogram:
    """Counts of the values of one tensor.

    Attributes:
        width: of a bin; a power of two, 0 before the first value.
        counts: ``(2 * HALF,) int64``; bin ``i`` holds ``[(i - HALF) * width, (i + 1 - HALF) *
            width)``.
        low, high: smallest and largest value seen, zero included.
        channel_low, channel_high, channel_mean_square: ``(channels,) float64`` each, of the last
            axis.
    """

    def __init__(self) -> None:
        self.width = 0.0
        self.counts: NDArray[np.int64] = np.zeros(2 * HALF, np.int64)
        self.low = self.high = 0.0
        self.channel_low: NDArray[np.float64] = np.zeros(0)
        self.channel_high: NDArray[np.float64] = np.zeros(0)
        self._squares: NDArray[np.float64] = np.zeros(0)
        self._rows = 0

    @property
    def channel_mean_square(self) -> NDArray[np.float64]:
        """Mean of the squared values of each channel."""
        return np.asarray(self._squares / max(1, self._rows), np.float64)

    @property
    def centers(self) -> NDArray[np.float64]:
        """The middle of each bin, ``(2 * HALF,)``."""
        return np.asarray((np.arange(2 * HALF) - HALF + 0.5) * self.width, np.float64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count an image's values, any shape with the channels last."""
        rows = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
        self._add_channels(rows)
        flat = rows.ravel()
        step = -(-flat.size // _MOST_VALUES)
        if step > 1:  # a step without a factor of the channel count, so that all channels are met
            while np.gcd(step, rows.shape[1]) > 1:
                step += 1
            flat = flat[::step]
        self._widen(max(self.high, -self.low))
        flat = flat[flat != 0]
        if flat.size:
            bins = np.floor(flat * np.float32(1 / self.width)).astype(np.int64) + HALF
            bins = np.clip(bins, 0, 2 * HALF - 1)
            self.counts += np.bincount(bins, minlength=2 * HALF)

    def _add_channels(self, rows: NDArray[np.float32]) -> None:
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        squares = np.einsum("ij,ij->j", rows, rows).astype(np.float64)
        if self._rows:
            low, high = np.minimum(low, self.channel_low), np.maximum(high, self.channel_high)
            squares = np.add(squares, self._squares, dtype=np.float64)
        self.channel_low, self.channel_high, self._squares = low, high, squares
        self._rows += len(rows)
        self.low = min(self.low, float(low.min()))
        self.high = max(self.high, float(high.max()))

    def _widen(self, most: float) -> None:
        if most <= 0 or most < self.width * HALF:
            return
        width = 2.0 ** np.ceil(np.log2(most / HALF))
        width = width if most < width * HALF else 2 * width
        while 0 < self.width < width:
            left, right = self.counts[:HALF], self.counts[HALF:]
            merged = np.zeros_like(self.counts)
            merged[HALF // 2 : HALF] = left.reshape(-1, 2).sum(axis=1)
            merged[HALF : HALF + HALF // 2] = right.reshape(-1, 2).sum(axis=1)
            self.counts = merged
            self.width *= 2
        self.width = float(width)


def joined(histograms: list[Histogram]) -> Histogram:
    """The counts of several tensors in one; the channels are left out."""
    whole = Histogram()
    whole.low = min(one.low for one in histograms)
    whole.high = max(one.high for one in histograms)
    whole.width = max(one.width for one in histograms)
    for one in histograms:
        if one.width == 0:
            continue
        bins = np.floor(one.centers / whole.width).astype(np.int64) + HALF
        np.add.at(whole.counts, bins, one.counts)
    return whole
