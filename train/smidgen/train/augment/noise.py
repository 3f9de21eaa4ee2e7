"""Noise, lost pixels, and blending by noise (``(n, S, S, 3) float32``, 0..255)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops, random

from smidgen.train.augment.draws import in_range, per_image, per_pixel, per_value


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise in each value."""

    deviations: tuple[float, float] = (2.0, 13.0)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One standard deviation per image."""
        noise = random.normal(tuple(pixels.shape), dtype="float32", seed=seeds)
        return in_range(pixels + per_image(pixels, seeds, self.deviations) * noise)


@dataclass(frozen=True)
class LaplaceNoise:
    """Laplace noise in each value: mostly small, with far outliers; ``deviations`` of it."""

    deviations: tuple[float, float] = (2.0, 13.0)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One standard deviation per image; drawn by the inverse of the distribution."""
        centred = per_value(pixels, seeds) - 0.5
        # The clip keeps the logarithm finite where the draw is exactly 0.
        size = -ops.log(ops.maximum(1.0 - 2.0 * ops.absolute(centred), 1e-6))
        scale = per_image(pixels, seeds, self.deviations) / np.sqrt(2.0)
        return in_range(pixels + scale * ops.sign(centred) * size)


@dataclass(frozen=True)
class PoissonNoise:
    """Shot noise: each value becomes a count of photons, ``photons`` of them for 255.

    Counts are drawn through Anscombe's transform ("The transformation of Poisson, binomial and
    negative-binomial data", 1948): where light falls, they have the mean and, to within one, the
    variance of a Poisson count.
    """

    photons: tuple[float, float] = (60.0, 600.0)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One exposure per image; the noise grows with the square root of the value."""
        scale = per_image(pixels, seeds, self.photons) / 255.0
        noise = random.normal(tuple(pixels.shape), dtype="float32", seed=seeds)
        root = ops.sqrt(pixels * scale + 0.375) + 0.5 * noise
        return in_range(ops.round(ops.square(ops.maximum(root, 0.0)) - 0.625) / scale)


@dataclass(frozen=True)
class Dropout:
    """Single values become 0: each channel of each pixel by itself."""

    shares: tuple[float, float] = (0.005, 0.05)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One share of lost values per image."""
        lost = per_value(pixels, seeds) < per_image(pixels, seeds, self.shares)
        return ops.where(lost, 0.0, pixels)


@dataclass(frozen=True)
class CoarseDropout:
    """Cells of a grid become black (DeVries and Taylor, "Cutout", 2017, with many small holes)."""

    shares: tuple[float, float] = (0.02, 0.1)
    cells: int = 16

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One share of lost cells per image; the grid has ``cells`` cells along a side."""
        count, height, width = pixels.shape[:3]
        drawn = random.uniform((count, self.cells, self.cells, 1), dtype="float32", seed=seeds)
        lost = drawn < per_image(pixels, seeds, self.shares)
        lost = ops.take(lost, np.arange(height) * self.cells // height, axis=1)
        lost = ops.take(lost, np.arange(width) * self.cells // width, axis=2)
        return ops.where(lost, 0.0, pixels)


@dataclass(frozen=True)
class Specks:
    """Single pixels become ``value``: 255 is salt, 0 is pepper."""

    value: float
    shares: tuple[float, float] = (0.002, 0.03)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One share of specks per image."""
        struck = per_pixel(pixels, seeds) < per_image(pixels, seeds, self.shares)
        return ops.where(struck, self.value, pixels)


@dataclass(frozen=True)
class FrequencyNoiseBlend:
    """Two alterations, each where a smooth random mask wants it.

    Idea: ``FrequencyNoiseAlpha`` of imgaug (Jung et al., github.com/aleju/imgaug). The mask is made
    in the frequency domain: white noise of ``grid`` x ``grid`` frequencies, weighted by
    ``frequency ** exponent`` (-4 gives clouds, 0 white noise), transformed back, stretched to 0..1,
    sharpened by a sigmoid and enlarged. The first alteration multiplies each channel by a number of
    its own, the second changes the contrast.
    """

    exponents: tuple[float, float] = (-4.0, -1.0)
    factors: tuple[float, float] = (0.7, 1.3)
    contrasts: tuple[float, float] = (0.6, 1.5)
    grid: int = 16

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One mask, three factors and one contrast per image."""
        count = pixels.shape[0]
        low, high = self.factors
        factors = random.uniform((count, 1, 1, 3), low, high, dtype="float32", seed=seeds)
        contrast = per_image(pixels, seeds, self.contrasts)
        first = pixels * factors
        second = pixels * contrast + 127.5 * (1.0 - contrast)
        return in_range(second + self.masks(pixels, seeds) * (first - second))

    def masks(self, pixels: Any, seeds: Any) -> Any:
        """``(n, S, S, 1) float32`` in 0..1, one mask per image."""
        count, height, width = pixels.shape[:3]
        along = np.fft.fftfreq(self.grid) * self.grid
        distance = np.hypot(along[:, None], along[None, :])
        distance[0, 0] = np.inf  # no constant part: the mask is stretched to 0..1 anyway
        exponent = ops.reshape(per_image(pixels, seeds, self.exponents), (count, 1, 1))
        weight = ops.exp(exponent * np.log(np.minimum(distance, 1e9)).astype(np.float32))
        spectrum = random.normal((2, count, self.grid, self.grid), dtype="float32", seed=seeds)
        plane, _ = ops.ifft2((spectrum[0] * weight, spectrum[1] * weight))
        least = ops.min(plane, axis=(1, 2), keepdims=True)
        most = ops.max(plane, axis=(1, 2), keepdims=True)
        plane = ops.sigmoid(12.0 * ((plane - least) / (most - least + 1e-12) - 0.5))
        return ops.image.resize(
            ops.expand_dims(plane, -1), (height, width), data_format="channels_last"
        )
