"""Reading JPEG files at an eighth, a quarter, ... of their size: what training can do without.

The inverse cosine transform of a JPEG block gives ``eighths`` x ``eighths`` instead of 8 x 8 pixels
when it leaves out the high frequencies: a good low-pass filter that costs less than none at all.
``7`` is left out: it takes longer than the whole size (libjpeg-turbo has vector code for 8, 4, 2
and 1), while 3, 5 and 6 save more in the resize that follows than they cost.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EIGHTHS = (1, 2, 3, 4, 5, 6, 8)

ScaledReader = Callable[[bytes, tuple[int, int], int], np.ndarray]
"""``(data, (width, height), eighths) -> (H, W, 3) or (H, W) uint8``, RGB or grey 0..255, where
``W = ceil(width * eighths / 8)``; raises any exception on data that is not whole."""


class Reader(NamedTuple):
    """A way to read JPEG files: ``name`` with version, the ``eighths`` that it can do."""

    name: str
    eighths: tuple[int, ...]
    read: ScaledReader


def fastest_reader() -> Reader:
    """simplejpeg where it is installed, else Pillow, which takes 1.5 times as long."""
    try:
        import simplejpeg
    except ImportError:
        return pillow_reader()
    return Reader(f"simplejpeg {simplejpeg.__version__}", EIGHTHS, _read_with_simplejpeg)


def pillow_reader() -> Reader:
    """Pillow's ``draft`` mode, which knows the halves only."""
    import PIL

    return Reader(f"Pillow {PIL.__version__}", (1, 2, 4, 8), _read_with_pillow)


def _read_with_simplejpeg(data: bytes, size: tuple[int, int], eighths: int) -> np.ndarray:
    """The default transform and chroma filter: Pillow's, so that whole sizes agree bit for bit.

    The faster ones of libjpeg-turbo saved 4 % of the time. ``strict`` refuses what libjpeg only
    warns of, as the end of the file in the middle of the picture.
    """
    import simplejpeg

    width, height = _scaled(size, eighths)
    pixels: np.ndarray = simplejpeg.decode_jpeg(
        data, min_height=height, min_width=width, strict=True
    )
    return pixels


def _read_with_pillow(data: bytes, size: tuple[int, int], eighths: int) -> np.ndarray:
    from PIL import Image, ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError("the application told Pillow to accept truncated images")
    with Image.open(io.BytesIO(data)) as image:
        divisor = 8 // eighths
        image.draft(None, (size[0] // divisor, size[1] // divisor))
        return np.asarray(image)


def _scaled(size: tuple[int, int], eighths: int) -> tuple[int, int]:
    width, height = size
    return -(-width * eighths // 8), -(-height * eighths // 8)
