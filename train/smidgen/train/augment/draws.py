"""Random numbers of the alterations, one per image or one per pixel.

``seeds`` is the ``keras.random.SeedGenerator`` of the layer: a variable of the model, so that a
checkpoint holds it and a resumed Run draws what the undisturbed one would have drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops, random

Operation = Callable[[Any, Any], Any]
"""``(pixels, seeds) -> pixels``: ``(n, S, S, 3) float32`` 0..255 in and out, ``n`` known."""


def per_image(pixels: Any, seeds: Any, between: tuple[float, float]) -> Any:
    """``(n, 1, 1, 1) float32``, uniform in ``between``: one number for each image."""
    shape = (pixels.shape[0], 1, 1, 1)
    return random.uniform(shape, between[0], between[1], dtype="float32", seed=seeds)


def per_pixel(pixels: Any, seeds: Any) -> Any:
    """``(n, S, S, 1) float32``, uniform in 0..1: one number for each pixel."""
    return random.uniform((*pixels.shape[:3], 1), dtype="float32", seed=seeds)


def per_value(pixels: Any, seeds: Any) -> Any:
    """``(n, S, S, 3) float32``, uniform in 0..1: one number for each channel of each pixel."""
    return random.uniform(tuple(pixels.shape), dtype="float32", seed=seeds)


def signs(pixels: Any, seeds: Any) -> Any:
    """``(n, 1, 1, 1) float32``: -1 or +1 for each image."""
    return ops.sign(per_image(pixels, seeds, (-1.0, 1.0)) + 1e-9)


def in_range(pixels: Any) -> Any:
    """The pixels cut to 0..255."""
    return ops.clip(pixels, 0.0, 255.0)
