"""The operations of RandAugment (Cubuk et al. 2020, arXiv:1909.13719) at one magnitude.

Keras' own RandAugment layer is not used: it draws one operation for a whole batch, computes all of
them, and equalizes with the histogram of the batch (Keras 3.15).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from smidgen.train.augment.blur import convolve
from smidgen.train.augment.draws import Operation, in_range, signs
from smidgen.train.augment.geometry import Rotate, Shear, Translate
from smidgen.train.augment.tone import gray


def operations(magnitude: float) -> Mapping[str, Operation]:
    """The paper's fourteen operations by name; ``magnitude`` 0..10 of AutoAugment's ranges.

    Operations with a direction take either one by chance. Edges are filled with the last pixels.
    """
    m = magnitude / 10.0
    return {
        "identity": identity,
        "auto contrast": auto_contrast,
        "equalize": equalize,
        "rotate": Rotate(30.0 * m, 30.0 * m),
        "solarize": Solarize(256.0 * (1.0 - m)),
        "color": Enhance("color", 0.9 * m),
        "posterize": Posterize(8 - round(4 * m)),
        "contrast": Enhance("contrast", 0.9 * m),
        "brightness": Enhance("brightness", 0.9 * m),
        "sharpness": Enhance("sharpness", 0.9 * m),
        "shear x": Shear(0.3 * m, along_x=True),
        "shear y": Shear(0.3 * m, along_x=False),
        "translate x": Translate(0.45 * m, along_x=True),
        "translate y": Translate(0.45 * m, along_x=False),
    }


def identity(pixels: Any, seeds: Any) -> Any:  # noqa: ARG001 (an Operation without chance)
    """The image as it is."""
    return pixels


def auto_contrast(pixels: Any, seeds: Any) -> Any:  # noqa: ARG001 (an Operation without chance)
    """Each channel stretched to 0..255; a channel of one value stays."""
    low = ops.min(pixels, axis=(1, 2), keepdims=True)
    high = ops.max(pixels, axis=(1, 2), keepdims=True)
    is_flat = high - low < 1e-3
    scale = 255.0 / ops.where(is_flat, 1.0, high - low)
    return ops.where(is_flat, pixels, in_range((pixels - low) * scale))


def equalize(pixels: Any, seeds: Any) -> Any:  # noqa: ARG001 (an Operation without chance)
    """Each channel's histogram made even, by Pillow's rule; a channel of few levels stays."""
    count, height, width, channels = pixels.shape
    levels = ops.cast(ops.round(in_range(pixels)), "int32")
    first = 256 * np.arange(count * channels, dtype="int32").reshape(count, 1, 1, channels)
    bins = levels + first
    ones = ops.ones((count * height * width * channels,), "float32")
    histogram = ops.segment_sum(ones, ops.reshape(bins, (-1,)), 256 * count * channels)
    histogram = ops.reshape(histogram, (count * channels, 256))
    below = ops.cumsum(histogram, axis=1) - histogram
    # All pixels but those of the highest level are spread over the 255 steps.
    spread = ops.max(ops.where(histogram > 0, below, 0.0), axis=1, keepdims=True)
    step = ops.floor(spread / 255.0)
    even = ops.floor((below + ops.floor(step / 2.0)) / ops.maximum(step, 1.0))
    table = ops.where(step < 1.0, ops.arange(256, dtype="float32"), ops.minimum(even, 255.0))
    return ops.take(ops.reshape(table, (-1,)), bins)


@dataclass(frozen=True)
class Solarize:
    """Values from ``threshold`` on are inverted."""

    threshold: float

    def __call__(self, pixels: Any, seeds: Any) -> Any:  # noqa: ARG002
        """``255 - x`` where ``x >= threshold``."""
        return ops.where(pixels >= self.threshold, 255.0 - pixels, pixels)


@dataclass(frozen=True)
class Posterize:
    """Only the ``bits`` highest of 8 bits of each value are kept."""

    bits: int

    def __call__(self, pixels: Any, seeds: Any) -> Any:  # noqa: ARG002
        """The next multiple of ``2 ** (8 - bits)`` below."""
        step = float(2 ** (8 - self.bits))
        return ops.floor(pixels / step) * step


@dataclass(frozen=True)
class Enhance:
    """Away from, or towards, the image without its colour, contrast, brightness or sharpness."""

    what: str
    amount: float

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """``plain + (1 +- amount) (x - plain)``, the sign by chance for each image."""
        plain = self._plain(pixels)
        factor = 1.0 + self.amount * signs(pixels, seeds)
        return in_range(plain + factor * (pixels - plain))

    def _plain(self, pixels: Any) -> Any:
        if self.what == "color":
            return gray(pixels)
        if self.what == "contrast":
            return ops.mean(gray(pixels), axis=(1, 2, 3), keepdims=True)
        if self.what == "brightness":
            return ops.zeros_like(pixels)
        smooth = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13.0  # Pillow's SMOOTH
        return convolve(pixels, ops.convert_to_tensor(np.tile(smooth, (pixels.shape[0], 1, 1))))
