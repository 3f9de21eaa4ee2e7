"""Pixels sooner: large pictures are scaled down while they are decoded, or before the resize.

The manifest's definition stays ``preprocessing.load_pixels``, "the reference". Two steps may come
before its resize, and only as far as ``LEAST_LEFT`` pixels are left for each pixel of the result:

1. JPEG in RGB or grey: the inverse DCT gives 1/2, 1/4 or 1/8 of each side (Pillow's ``draft``,
   libjpeg-turbo). The crop box is scaled by exactly that factor, whatever the rounded-up size.
2. Any picture: whole pixels are averaged (``reducing_gap`` of Pillow's ``Image.resize``).

Whatever is too small for both comes out as the reference's own bits. CMYK and YCCK are not decoded
scaled: they become RGB by products, and a product of means is not a mean of products.

Not used, because it does not pay: simplejpeg and OpenCV decode the same scaled pixels 3-7 % sooner.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args

import numpy as np

from smidgen.runtime.errors import ArgumentInvalid
from smidgen.runtime.image_files import MAX_PIXELS, decode, exif_orientation
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import (
    array_picture,
    crop_box,
    load_pixels,
    pillow_filter,
    to_rgb,
    turned,
    upright_rgb,
)

if TYPE_CHECKING:
    from PIL import Image

    from smidgen.runtime.image_files import ImageSource, Pixels

Decoder = Literal["auto", "reference"]

LEAST_LEFT = 1.6
"""Pixels left, in each direction, for each pixel of the result.

Against the reference, 200 photos of ImageNet where just 1.6 are left, of 255 levels: mean 1.1 at
1/2, 1.2 at 1/4, 1.5 at 1/8; the worst photo's mean 5.5, 4.5, 3.7 (the second worst's 3.1); the
largest difference 30. With 1.25 left the means are half as large again and the largest is 45; with
2 they are 2/3 of it and 24. 1.6 is what lets 12 megapixels become 224 pixels by way of 1/8."""

MEAN_TOLERANCE = 6.0
"""Mean absolute difference of a photo from the reference, of 255 levels (measured: at most 5.5)."""

LARGEST_TOLERANCE = 35
"""Difference of one value from the reference, of 255 levels (measured: at most 31)."""


def load(
    source: ImageSource,
    preprocessing: Preprocessing,
    *,
    max_pixels: int = MAX_PIXELS,
    decoder: Decoder = "auto",
) -> Pixels:
    """As ``preprocessing.load_pixels``, sooner: ``(height, width, 3) uint8, RGB, 0..255``.

    Args:
        source: what ``load_pixels`` takes.
        preprocessing: the four steps, from the manifest.
        max_pixels: limit of width x height of the source.
        decoder: ``"auto"``: within ``MEAN_TOLERANCE`` and ``LARGEST_TOLERANCE`` of the reference
            on photos; ``"reference"``: ``load_pixels`` itself.

    Raises:
        ImageUnreadable, ImageTooLarge, ImageArrayInvalid: as ``load_pixels``.
        ArgumentInvalid: another ``decoder``.
    """
    return timed(source, preprocessing, max_pixels=max_pixels, decoder=decoder)[0]


def timed(
    source: ImageSource,
    preprocessing: Preprocessing,
    *,
    max_pixels: int = MAX_PIXELS,
    decoder: Decoder = "auto",
) -> tuple[Pixels, tuple[int, int]]:
    """``load``, with nanoseconds spent on decoding (0 for arrays) and on the other steps."""
    if decoder not in get_args(Decoder):
        raise ArgumentInvalid(f"decoder = {decoder!r}: expected one of {get_args(Decoder)}")
    is_auto = decoder == "auto"
    start = time.perf_counter_ns()
    scaling = _Scaling(preprocessing) if is_auto else None
    picture: Any = source
    if not isinstance(source, np.ndarray):
        hook = None if scaling is None else scaling.before_pixels
        picture = decode(source, max_pixels=max_pixels, before_pixels=hook)
    decoded = time.perf_counter_ns()
    if scaling is None:
        pixels = load_pixels(picture, preprocessing, max_pixels=max_pixels)
    elif scaling.factor > 1:
        pixels = _from_scaled(picture, scaling)
    else:
        pixels = _from_whole(picture, preprocessing, max_pixels)
    return pixels, (decoded - start, time.perf_counter_ns() - decoded)


@dataclass
class _Scaling:
    """By how much the JPEG decoder was told to scale one file, and its size before."""

    preprocessing: Preprocessing
    width: int = 0
    height: int = 0
    factor: int = 1

    def before_pixels(self, image: Any) -> None:
        """Tell the decoder of an opened JPEG the largest factor that leaves enough pixels."""
        if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
            return
        self.width, self.height = image.size
        left, top, right, bottom = crop_box(self.width, self.height, self.preprocessing)
        wide, high = self.result_size(exif_orientation(image))
        least = min((right - left) / wide, (bottom - top) / high) / LEAST_LEFT
        factor = next((f for f in (8, 4, 2) if f <= least), 1)
        if factor > 1:
            image.draft(None, (self.width // factor, self.height // factor))
            self.factor = factor if image.size == self._scaled_size(factor) else 1

    def result_size(self, orientation: int) -> tuple[int, int]:
        """Width and height of the result before the picture is turned."""
        size = (self.preprocessing.width, self.preprocessing.height)
        is_across = self.preprocessing.exif_orientation and orientation >= 5
        return size[::-1] if is_across else size

    def _scaled_size(self, factor: int) -> tuple[int, int]:
        return -(-self.width // factor), -(-self.height // factor)


def _from_scaled(image: Image.Image, scaling: _Scaling) -> Pixels:
    """The box first, in the file's own directions: turning would move a last, partial pixel."""
    preprocessing, factor = scaling.preprocessing, scaling.factor
    left, top, right, bottom = crop_box(scaling.width, scaling.height, preprocessing)
    box = (left / factor, top / factor, right / factor, bottom / factor)
    orientation = exif_orientation(image) if preprocessing.exif_orientation else 1
    size = scaling.result_size(orientation)
    rgb = to_rgb(image, preprocessing.background)
    small = rgb.resize(size, pillow_filter(preprocessing), box, LEAST_LEFT)
    return np.array(turned(small, orientation), dtype=np.uint8)


def _from_whole(
    picture: Union[Image.Image, Any], preprocessing: Preprocessing, max_pixels: int
) -> Pixels:
    if isinstance(picture, np.ndarray):
        image = array_picture(picture, preprocessing, max_pixels)
        if isinstance(image, np.ndarray):
            return image
        rgb = to_rgb(image, preprocessing.background)
    else:
        rgb = upright_rgb(picture, preprocessing)
    box = crop_box(rgb.width, rgb.height, preprocessing)
    size = (preprocessing.width, preprocessing.height)
    small = rgb.resize(size, pillow_filter(preprocessing), box, LEAST_LEFT)
    return np.array(small, dtype=np.uint8)
