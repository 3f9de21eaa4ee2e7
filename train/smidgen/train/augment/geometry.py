"""Moves, turns, zooms and shears, each as ONE bilinear resampling with edge fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, random

from smidgen.train.augment.draws import per_image, signs


def warp(pixels: Any, matrix: tuple[Any, Any, Any, Any], shift: tuple[Any, Any], side: int) -> Any:
    """Resample ``(n, H, H, 3)`` to ``(n, side, side, 3)``, ``side <= H``, around the centres.

    Args:
        pixels: float32, any range.
        matrix: a, b, c, d, each ``(n, ...)`` of n numbers or a number: the output
            at ``(x, y)`` from its centre shows the input at ``(a x + b y, c x + d y)`` from its
            centre.
        shift: what is added to that, to the right and down, in pixels of the input.
        side: of the output, in pixels.
    """
    count, whole = pixels.shape[0], pixels.shape[1]
    a, b, c, d, right, down = (
        ops.broadcast_to(ops.reshape(ops.convert_to_tensor(value, "float32"), (-1,)), (count,))
        for value in (*matrix, *shift)
    )
    centre_in, centre_out = (whole - 1) / 2, (side - 1) / 2
    start_x = centre_in + right - (a + b) * centre_out
    start_y = centre_in + down - (c + d) * centre_out
    zero = ops.zeros_like(a)
    transform = ops.stack([a, b, start_x, c, d, start_y, zero, zero], axis=1)
    warped = ops.image.affine_transform(
        pixels, transform, "bilinear", "nearest", data_format="channels_last"
    )
    return warped[:, :side, :side]


@dataclass(frozen=True)
class Rotate:
    """Turn by an angle between ``least`` and ``most`` degrees, to either side."""

    most: float
    least: float = 0.0

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One angle per image."""
        angle = _either_way(pixels, seeds, self.least, self.most) * (np.pi / 180)
        cos, sin = ops.cos(angle), ops.sin(angle)
        return warp(pixels, (cos, -sin, sin, cos), (0.0, 0.0), pixels.shape[1])


@dataclass(frozen=True)
class Shear:
    """Slant along x (or y) by ``amount`` pixels per pixel, to either side."""

    amount: float
    along_x: bool

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One direction per image."""
        slant = _either_way(pixels, seeds, self.amount, self.amount)
        matrix = (1.0, slant, 0.0, 1.0) if self.along_x else (1.0, 0.0, slant, 1.0)
        return warp(pixels, matrix, (0.0, 0.0), pixels.shape[1])


@dataclass(frozen=True)
class Translate:
    """Move along x (or y) by ``share`` of the side, to either side."""

    share: float
    along_x: bool

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One direction per image."""
        side = pixels.shape[1]
        way = _either_way(pixels, seeds, self.share * side, self.share * side)
        return warp(pixels, (1.0, 0.0, 0.0, 1.0), (way, 0.0) if self.along_x else (0.0, way), side)


class RandomView(keras.layers.Layer):  # type: ignore[misc]
    """Crop, zoom, shift, turn and mirror every image by chance, in one resampling.

    ``(N, image_size + margin, ., 3) float32`` to ``(N, image_size, image_size, 3)``, any range.
    Outside training it is the centred crop of ``image_size`` (nothing, if the images have it).
    """

    def __init__(  # noqa: PLR0913 (what can be chosen about a view, by name)
        self,
        image_size: int,
        batch_size: int,
        *,
        coverage: tuple[float, float],
        shift: float | None,
        degrees: float,
        flip: bool,
        seed: int,
        name: str,
    ) -> None:
        """What is drawn for each image, uniformly.

        Args:
            image_size: side of the output.
            batch_size: images per step, where the input does not say it.
            coverage: side of the view as a share of the input's side.
            shift: the view's way from the centre, at most, right and down, as such a share; None:
                anywhere within the image.
            degrees: the turn, at most, to either side.
            flip: whether every second image, by chance, is mirrored left to right.
            seed: of the draws.
            name: of the layer.
        """
        super().__init__(name=name, dtype="float32")
        # TensorFlow has no XLA kernel for the resampling.
        self.supports_jit = keras.config.backend() != "tensorflow"
        self.seeds = keras.random.SeedGenerator(seed)
        self.image_size, self.batch_size = image_size, batch_size
        self.coverage, self.shift, self.degrees, self.flip = coverage, shift, degrees, flip

    def call(self, pixels: Any, training: bool = False) -> Any:
        """The views; ``training`` false: the centred crop."""
        whole = pixels.shape[1]
        if not training:
            edge = (whole - self.image_size) // 2
            return pixels[:, edge : edge + self.image_size, edge : edge + self.image_size]
        pixels = with_count(pixels, self.batch_size)
        coverage = per_image(pixels, self.seeds, self.coverage)
        step = coverage * (whole / self.image_size)
        angle = per_image(pixels, self.seeds, (-self.degrees, self.degrees)) * (np.pi / 180)
        cos, sin = step * ops.cos(angle), step * ops.sin(angle)
        mirror = signs(pixels, self.seeds) if self.flip else 1.0
        share = (1.0 - ops.reshape(coverage, (-1,))) / 2 if self.shift is None else self.shift
        shape = (2, pixels.shape[0])
        way = share * whole * random.uniform(shape, -1.0, 1.0, dtype="float32", seed=self.seeds)
        matrix = (mirror * cos, -sin, mirror * sin, cos)
        return warp(pixels, matrix, (way[0], way[1]), self.image_size)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """``(N, image_size, image_size, 3)``."""
        return (input_shape[0], self.image_size, self.image_size, input_shape[3])


def with_count(pixels: Any, batch_size: int) -> Any:
    """The same pixels, whose first dimension is known: their own, or else ``batch_size``."""
    return ops.reshape(pixels, (pixels.shape[0] or batch_size, *pixels.shape[1:]))


def _either_way(pixels: Any, seeds: Any, least: float, most: float) -> Any:
    return signs(pixels, seeds) * per_image(pixels, seeds, (least, most))
