"""Blurs, each with its own kernel for every image (``(n, S, S, 3) float32``, 0..255)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from smidgen.train.augment.draws import per_image

RADIUS = 3
"""The kernels are ``2 * RADIUS + 1`` pixels wide."""

_ROWS, _COLUMNS = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(np.float32)


def convolve(pixels: Any, kernels: Any) -> Any:
    """Filter image ``i`` with kernel ``i`` (``(n, k, k)``, ``k`` odd); edges are mirrored.

    Images and channels become the channels of one depthwise convolution.
    """
    count, height, width, channels = pixels.shape
    reach = kernels.shape[1] // 2
    border = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = ops.transpose(ops.pad(pixels, border, mode="symmetric"), (1, 2, 0, 3))
    padded = ops.reshape(padded, (1, height + 2 * reach, width + 2 * reach, count * channels))
    weights = ops.repeat(ops.transpose(kernels, (1, 2, 0)), channels, axis=2)
    filtered = ops.depthwise_conv(
        padded, ops.expand_dims(weights, -1), padding="valid", data_format="channels_last"
    )
    filtered = ops.reshape(filtered, (height, width, count, channels))
    return ops.transpose(filtered, (2, 0, 1, 3))


@dataclass(frozen=True)
class GaussianBlur:
    """Gaussian kernel; ``sigmas`` in pixels."""

    sigmas: tuple[float, float] = (0.3, 1.0)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One sigma per image."""
        sigma = _kernel_shaped(per_image(pixels, seeds, self.sigmas))
        return convolve(pixels, _normalised(ops.exp(_squares() / (-2.0 * sigma * sigma))))


@dataclass(frozen=True)
class AverageBlur:
    """Mean over a square; ``widths`` in pixels, fractions of a pixel count in part."""

    widths: tuple[float, float] = (1.2, 3.0)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One width per image."""
        half = 0.5 + 0.5 * _kernel_shaped(per_image(pixels, seeds, self.widths))
        rows = ops.clip(half - np.abs(_ROWS), 0.0, 1.0)
        columns = ops.clip(half - np.abs(_COLUMNS), 0.0, 1.0)
        return convolve(pixels, _normalised(rows * columns))


@dataclass(frozen=True)
class MotionBlur:
    """Mean along a line in any direction; ``lengths`` in pixels."""

    lengths: tuple[float, float] = (2.0, 4.5)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One length and one direction per image."""
        half = 0.5 + 0.5 * _kernel_shaped(per_image(pixels, seeds, self.lengths))
        angle = _kernel_shaped(per_image(pixels, seeds, (0.0, np.pi)))
        along = ops.absolute(ops.cos(angle) * _COLUMNS + ops.sin(angle) * _ROWS)
        across = ops.absolute(ops.cos(angle) * _ROWS - ops.sin(angle) * _COLUMNS)
        line = ops.clip(half - along, 0.0, 1.0) * ops.maximum(1.0 - across, 0.0)
        return convolve(pixels, _normalised(line))


def median_blur(pixels: Any, seeds: Any) -> Any:  # noqa: ARG001 (an Operation without chance)
    """Median of 3 x 3 pixels of each channel, edges mirrored.

    By sorting columns, then combining the three sorted columns: the median of nine is the median of
    the largest minimum, the median of medians and the smallest maximum (Smith, "Implementing median
    filters in XC4000E FPGAs", 1996).
    """
    padded = ops.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    low, middle, high = _sorted3(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])
    lows = ops.maximum(ops.maximum(low[:, :, :-2], low[:, :, 1:-1]), low[:, :, 2:])
    highs = ops.minimum(ops.minimum(high[:, :, :-2], high[:, :, 1:-1]), high[:, :, 2:])
    middles = _median3(middle[:, :, :-2], middle[:, :, 1:-1], middle[:, :, 2:])
    return _median3(lows, middles, highs)


def _sorted3(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    a, b = ops.minimum(a, b), ops.maximum(a, b)
    b, c = ops.minimum(b, c), ops.maximum(b, c)
    return ops.minimum(a, b), ops.maximum(a, b), c


def _median3(a: Any, b: Any, c: Any) -> Any:
    return ops.maximum(ops.minimum(a, b), ops.minimum(ops.maximum(a, b), c))


def _squares() -> Any:
    return ops.convert_to_tensor(_ROWS**2 + _COLUMNS**2)


def _kernel_shaped(numbers: Any) -> Any:
    return ops.reshape(numbers, (-1, 1, 1))


def _normalised(kernels: Any) -> Any:
    return kernels / ops.sum(kernels, axis=(1, 2), keepdims=True)
