"""Alterations of light and colour: every pixel by itself (``(n, S, S, 3) float32``, 0..255)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from smidgen.train.augment.draws import in_range, per_image

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness that is seen (ITU-R BT.601)."""

# BT.601's RGB -> YIQ: one axis of brightness, two of colour.
_TO_YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


def gray(pixels: Any) -> Any:
    """Brightness ``(n, S, S, 1)`` of RGB pixels."""
    return ops.matmul(pixels, ops.reshape(ops.convert_to_tensor(LUMA, "float32"), (3, 1)))


@dataclass(frozen=True)
class AddBrightness:
    """Add one number to all values of an image."""

    values: tuple[float, float] = (-35.0, 35.0)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """``x + a``."""
        return in_range(pixels + per_image(pixels, seeds, self.values))


@dataclass(frozen=True)
class MultiplyBrightness:
    """Multiply all values of an image by one number."""

    factors: tuple[float, float] = (0.7, 1.3)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """``a x``."""
        return in_range(pixels * per_image(pixels, seeds, self.factors))


@dataclass(frozen=True)
class HueSaturation:
    """Turn and stretch the two colour axes of YIQ; greys and the brightness stay as they are.

    A linear map of RGB (Haeberli, "Matrix Operations for Image Processing", 1993), a third of the
    time of going to HSV and back.
    """

    degrees: tuple[float, float] = (-30.0, 30.0)
    factors: tuple[float, float] = (0.5, 1.5)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """``x M`` with one 3 x 3 matrix per image."""
        angle = ops.reshape(per_image(pixels, seeds, self.degrees), (-1, 1, 1)) * (np.pi / 180)
        stretch = ops.reshape(per_image(pixels, seeds, self.factors), (-1, 1, 1))
        back = np.linalg.inv(_TO_YIQ)
        kept = back[:, :1] @ _TO_YIQ[:1]
        along = back[:, 1:] @ _TO_YIQ[1:]
        across = back[:, 1:] @ np.array([[0.0, -1.0], [1.0, 0.0]]) @ _TO_YIQ[1:]
        constant = [ops.convert_to_tensor(m.T, "float32") for m in (kept, along, across)]
        matrices = constant[0] + stretch * (
            ops.cos(angle) * constant[1] + ops.sin(angle) * constant[2]
        )
        flat = ops.reshape(pixels, (pixels.shape[0], -1, 3))
        return in_range(ops.reshape(ops.matmul(flat, matrices), pixels.shape))


@dataclass(frozen=True)
class GammaContrast:
    """``255 (x / 255)^g``: brightens or darkens the middle, keeps black and white."""

    exponents: tuple[float, float] = (0.6, 1.6)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One exponent per image."""
        return 255.0 * ops.power(pixels / 255.0, per_image(pixels, seeds, self.exponents))


@dataclass(frozen=True)
class SigmoidContrast:
    """``255 / (1 + exp(gain (cutoff - x / 255)))``: more contrast around the cutoff.

    Braun and Fairchild, "Image Lightness Rescaling Using Sigmoidal Contrast Enhancement
    Functions", 1999.
    """

    gains: tuple[float, float] = (5.0, 9.0)
    cutoffs: tuple[float, float] = (0.4, 0.6)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One gain and one cutoff per image."""
        gain = per_image(pixels, seeds, self.gains)
        cutoff = per_image(pixels, seeds, self.cutoffs)
        return 255.0 * ops.sigmoid(gain * (pixels / 255.0 - cutoff))


@dataclass(frozen=True)
class LogContrast:
    """``255 gain log2(1 + x / 255)``: lifts the dark half."""

    gains: tuple[float, float] = (0.7, 1.1)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One gain per image."""
        gain = per_image(pixels, seeds, self.gains)
        return in_range(255.0 / np.log(2.0) * gain * ops.log1p(pixels / 255.0))


@dataclass(frozen=True)
class LinearContrast:
    """``127.5 + a (x - 127.5)``: stretch or squeeze around mid-grey."""

    factors: tuple[float, float] = (0.6, 1.4)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One factor per image."""
        factor = per_image(pixels, seeds, self.factors)
        return in_range(pixels * factor + 127.5 * (1.0 - factor))


@dataclass(frozen=True)
class ColourJitter:
    """Brightness (added), contrast (around the image's mean) and saturation, in one linear map."""

    brightness: float = 0.15
    contrast: float = 0.2
    saturation: float = 0.2

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """``c (s x + (1 - s) gray - mean) + mean + 255 b``, one ``b``, ``c``, ``s`` per image."""
        flat = ops.reshape(pixels, (pixels.shape[0], -1, 3))
        added, contrast, saturation = (
            ops.reshape(per_image(pixels, seeds, (-amount, amount)), (-1, 1, 1))
            for amount in (self.brightness, self.contrast, self.saturation)
        )
        to_gray = ops.convert_to_tensor(np.outer(LUMA, np.ones(3)), "float32")
        matrices = ops.eye(3) + saturation * (ops.eye(3) - to_gray)
        mean = ops.matmul(ops.mean(flat, axis=1, keepdims=True), to_gray)
        altered = ops.matmul(flat, (1.0 + contrast) * matrices) + (255.0 * added - contrast * mean)
        return in_range(ops.reshape(altered, pixels.shape))
