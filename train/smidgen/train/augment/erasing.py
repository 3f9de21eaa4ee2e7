"""Random erasing (Zhong et al. 2020, arXiv:1708.04896)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops, random

from smidgen.train.augment.draws import per_image, per_value


@dataclass(frozen=True)
class Erase:
    """A rectangle of random area and shape becomes noise, uniform in 0..255.

    ``areas``: its share of the image; ``aspects``: height over width, of which the logarithm is
    drawn. A side longer than the image's is cut.
    """

    areas: tuple[float, float] = (0.02, 0.25)
    aspects: tuple[float, float] = (0.3, 1 / 0.3)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One rectangle per image."""
        return ops.where(self.inside(pixels, seeds), 255.0 * per_value(pixels, seeds), pixels)

    def inside(self, pixels: Any, seeds: Any) -> Any:
        """``(n, S, S, 1) bool``: the rectangles."""
        area = per_image(pixels, seeds, self.areas)
        low, high = (math.log(aspect) for aspect in self.aspects)
        aspect = ops.exp(per_image(pixels, seeds, (low, high)))
        return rectangles(pixels, seeds, ops.sqrt(area * aspect), ops.sqrt(area / aspect))


def rectangles(pixels: Any, seeds: Any, heights: Any, widths: Any) -> Any:
    """``(n, S, S, 1) bool``: rectangles anywhere inside the images.

    ``heights`` and ``widths``: ``(n, 1, 1, 1)``, shares of the sides; whole pixels come out.
    """
    side = pixels.shape[1]
    within = []
    for lengths, shape in ((heights, (1, side, 1, 1)), (widths, (1, 1, side, 1))):
        pixel_length = ops.clip(ops.round(lengths * side), 0.0, float(side))
        drawn = random.uniform((pixels.shape[0], 1, 1, 1), dtype="float32", seed=seeds)
        first = ops.floor(drawn * (side - pixel_length + 1.0))
        at = np.arange(side, dtype=np.float32).reshape(shape)
        within.append(ops.logical_and(at >= first, at < first + pixel_length))
    return ops.logical_and(within[0], within[1])
