"""What the headers of image files say: kinds, sizes, animation. No pixel is decoded."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

_MANY_PICTURES_BUT_STILL = ("MPO",)
"""JPEG files of some phones: the other pictures are previews or the other eye's view."""


@dataclass(frozen=True)
class Spread:
    """Of a length in pixels."""

    smallest: int
    median: int
    largest: int


@dataclass(frozen=True)
class FileFacts:
    """Of many image files together.

    ``kinds`` counts them by format and Pillow's name for the kind of pixel, as "JPEG CMYK"; sizes
    are those that the files store, before a turn that EXIF asks for.
    """

    kinds: dict[str, int]
    width: Spread
    height: Spread
    animated: int


def file_facts(paths: Iterable[str]) -> FileFacts:
    """Read the headers of ``paths`` in threads. A file that cannot be read is of kind "unknown"."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about sizes and odd metadata
        seen = list(pool.map(_header, paths, chunksize=64))
    widths = [width for _, width, _, _ in seen if width]
    heights = [height for _, _, height, _ in seen if height]
    return FileFacts(
        kinds=dict(Counter(kind for kind, _, _, _ in seen).most_common()),
        width=_spread(widths),
        height=_spread(heights),
        animated=sum(is_animated for _, _, _, is_animated in seen),
    )


def _header(path: str) -> tuple[str, int, int, bool]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            moves = getattr(image, "is_animated", False)
            is_animated = bool(moves) and image.format not in _MANY_PICTURES_BUT_STILL
            return f"{image.format} {image.mode}", image.width, image.height, is_animated
    except Exception:  # any exception: Pillow's readers meet arbitrary bytes
        return "unknown", 0, 0, False


def _spread(lengths: list[int]) -> Spread:
    if not lengths:
        return Spread(0, 0, 0)
    return Spread(min(lengths), round(median(lengths)), max(lengths))
