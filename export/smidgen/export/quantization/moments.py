"""Means and covariances of what goes into the kernels of a network, over calibration images.

A kernel's output at one place is ``kernel @ patch + bias``. So the mean and the covariance of the
patches say how large an error of the kernel is in the output, for any error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smidgen.export.quantization.pairing import Pair, PairedGraph

MOST_TAPS = 2400
"""Longest patch that is kept (a covariance of 23 MB); longer kernels are rounded to nearest."""

_MOST_PLACES = {"CONV_2D": 64, "DEPTHWISE_CONV_2D": 16}
"""Places of one image whose patches are taken; a depthwise kernel has few taps."""

_AT_ONCE = {"CONV_2D": 512, "DEPTHWISE_CONV_2D": 64, "FULLY_CONNECTED": 64}
"""Patches that wait for one matrix product."""


class PatchMoments:
    """Mean and covariance of the patches under one kernel.

    A depthwise kernel has patches ``(channels, taps)``, others one group ``(1, taps)`` with the
    taps in the order of the kernel's layout (height, width, input channel).
    """

    def __init__(self, pair: Pair, kernel: NDArray[np.float32]) -> None:
        self.pair = pair
        self._shape = kernel.shape
        self._sum: NDArray[np.float64] = np.zeros(0)
        self._products: NDArray[np.float32] = np.zeros(0, np.float32)
        self._waiting: list[NDArray[np.float32]] = []
        self.count = 0

    @staticmethod
    def fits(pair: Pair, kernel: NDArray[np.float32]) -> bool:
        """Whether the covariance is small enough to be kept."""
        return pair.kind == "DEPTHWISE_CONV_2D" or kernel[0].size <= MOST_TAPS

    def add(self, values: NDArray[np.float32], number: int) -> None:
        """Take patches of image ``number``'s input ``(1, H, W, C)`` (or ``(N, C)``)."""
        patches = self._patches(values, number)
        self._waiting.append(patches)
        self.count += patches.shape[1]
        if sum(some.shape[1] for some in self._waiting) >= _AT_ONCE[self.pair.kind]:
            self._take()

    def _take(self) -> None:
        """Add the patches that wait: many at once, which is several times as fast."""
        if not self._waiting:
            return
        patches = np.concatenate(self._waiting, axis=1)
        self._waiting = []
        sums = patches.sum(axis=1).astype(np.float64)
        if len(patches) == 1:
            products = (patches[0].T @ patches[0])[np.newaxis]
        else:
            products = np.ascontiguousarray(patches.transpose(0, 2, 1)) @ patches
        if self._sum.size:
            self._sum += sums
            self._products += products
        else:
            self._sum, self._products = sums, products

    @property
    def mean(self) -> NDArray[np.float64]:
        """``(groups, taps)``."""
        self._take()
        return self._sum / max(1, self.count)

    @property
    def is_enough(self) -> bool:
        """Whether there are as many patches as a covariance of so many taps needs."""
        self._take()
        return self._products.ndim == 3 and self.count >= 2 * self._products.shape[1]

    @property
    def second_moment(self) -> NDArray[np.float64]:
        """``(groups, taps, taps)``, about zero."""
        self._take()
        return self._products.astype(np.float64) / max(1, self.count)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """``(groups, taps, taps)``."""
        mean = self.mean
        return self.second_moment - mean[:, :, np.newaxis] * mean[:, np.newaxis, :]

    def _patches(self, values: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        """``(groups, places, taps)``."""
        if self.pair.kind == "FULLY_CONNECTED":
            return values.reshape(1, -1, self._shape[1])
        height, width = self._shape[1:3]
        taps = _taps(values, (height, width), self.pair, number)
        if self.pair.kind == "DEPTHWISE_CONV_2D":
            multiplier = self._shape[3] // values.shape[3]
            groups = np.ascontiguousarray(taps.transpose(2, 1, 0))
            return groups if multiplier == 1 else np.repeat(groups, multiplier, axis=0)
        return taps.transpose(1, 0, 2).reshape(1, taps.shape[1], -1)


def _taps(
    values: NDArray[np.float32], kernel: tuple[int, int], pair: Pair, number: int
) -> NDArray[np.float32]:
    """``(height * width, places, channels)``: what each tap of the kernel sees at some places."""
    options = pair.float_operator.builtinOptions
    strides = (int(options.strideH), int(options.strideW))
    dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
    is_same = int(options.padding) == 0
    sizes, pads = [], [(0, 0)]
    for axis in range(2):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        length = values.shape[axis + 1]
        size = -(-length // strides[axis]) if is_same else (length - reach) // strides[axis] + 1
        missing = max(0, (size - 1) * strides[axis] + reach - length) if is_same else 0
        sizes.append(size)
        pads.append((missing // 2, missing - missing // 2))
    padded = np.pad(values, [*pads, (0, 0)])[0] if any(map(any, pads)) else values[0]
    rows, columns = _places(sizes, number, _MOST_PLACES[pair.kind])
    rows, columns = rows * strides[0], columns * strides[1]
    return np.stack(
        [
            padded[rows + y * dilation[0], columns + x * dilation[1]]
            for y in range(kernel[0])
            for x in range(kernel[1])
        ]
    )


def _places(
    sizes: Sequence[int], number: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    total = sizes[0] * sizes[1]
    places = np.arange(total)
    if total > most:
        places = np.random.default_rng([number, total]).choice(total, most, replace=False)
        places.sort()
    return places // sizes[1], places % sizes[1]


def patch_moments(graph: PairedGraph) -> dict[int, PatchMoments]:
    """Empty moments for each kernel that they can be kept of, by the pair's position."""
    return {
        pair.position: PatchMoments(pair, graph.kernel(pair))
        for pair in graph.pairs
        if pair.is_weighted and PatchMoments.fits(pair, graph.kernel(pair))
    }
