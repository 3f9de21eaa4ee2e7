"""From an image file to a square of pixels: as the device does it, or fast, for training."""

from __future__ import annotations

import dataclasses
import io
import os
import stat
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from smidgen.runtime.errors import ImageUnreadable
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import crop_box, load_pixels, upright_rgb
from smidgen.runtime.schema import as_mapping
from smidgen.train.pixels.jpeg import Reader, fastest_reader

_FORMAT = 1
"""Raise it when a change of this module gives other pixels: caches are then made anew."""
_JPEG_MAGIC = b"\xff\xd8\xff"
_MAX_FAST_PIXELS = 64_000_000
"""Of larger photographs the reference pre-processing decides whether they are too large."""

Box = tuple[float, float, float, float]


class Decoder(Protocol):
    """Makes squares of pixels of image files. Threads call it at the same time."""

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the pixels, as values for JSON: equal settings, equal pixels."""

    def decode(self, path: str) -> np.ndarray:
        """The file's pixels, ``(side, side, 3) uint8`` RGB 0..255. Raises ImageError."""


class FlatDecoder:
    """One grey level per file, made of its content; files that begin with ``bad`` are refused.

    The fake: counts its calls in ``calls``.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.settings: dict[str, Any] = {"decoder": "flat", "side": side}
        self.calls = 0

    def decode(self, path: str) -> np.ndarray:
        """A square of one level."""
        self.calls += 1
        data = Path(path).read_bytes()
        if data.startswith(b"bad"):
            raise ImageUnreadable(f"{path}: a bad image; replace it by a good one")
        return np.full((self.side, self.side, 3), zlib.crc32(data) % 256, np.uint8)


class ReferenceDecoder:
    """The pre-processing of manifest and device, for everything that is measured with."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        """Raises ValueError where ``preprocessing`` gives no square."""
        if preprocessing.width != preprocessing.height:
            raise ValueError(f"{preprocessing.width} x {preprocessing.height} is no square")
        self._preprocessing = preprocessing

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""
        return self._preprocessing.width

    @property
    def settings(self) -> dict[str, Any]:
        """The pre-processing, and the version of Pillow, which carries it out."""
        import PIL

        return {
            "decoder": "reference",
            "format": _FORMAT,
            "preprocessing": as_mapping(self._preprocessing),
            "libraries": [f"Pillow {PIL.__version__}"],
        }

    def decode(self, path: str) -> np.ndarray:
        """``load_pixels``."""
        pixels: np.ndarray = load_pixels(path, self._preprocessing)
        return pixels


class TrainingDecoder:
    """The same picture for training, ``margin`` pixels larger than the input, from JPEG fast.

    JPEG files are read at the smallest scale (``jpeg.py``) at which the box that is cropped still
    has ``side`` pixels. What is then left to resize is done by the reference's filter; where
    nothing is, the box is cut out at whole pixels, at most half a pixel off. A picture read at its
    whole size comes out as the reference makes it, up to the rounding of turned ones; one read
    smaller differs by 1 to 3 grey levels on average over photographs (a shift by two pixels
    would make 8).

    Every other file goes the reference's way, as does a JPEG that is neither RGB nor grey, has more
    than 64 megapixels or is not whole: what is refused, and in which words, is decided there.
    """

    def __init__(
        self, preprocessing: Preprocessing, margin: int = 0, reader: Reader | None = None
    ) -> None:
        """
        Args:
            preprocessing: of the network's input, a square.
            margin: pixels by which the decoded squares are larger.
            reader: of JPEG files; None: the fastest that is installed.
        """
        self._preprocessing = dataclasses.replace(
            preprocessing,
            width=preprocessing.width + margin,
            height=preprocessing.height + margin,
        )
        self._reference = ReferenceDecoder(self._preprocessing)
        self._reader = reader or fastest_reader()

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""
        return self._reference.side

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the reference, with the JPEG reader's version."""
        reference = self._reference.settings
        libraries = [*reference["libraries"], self._reader.name]
        return {**reference, "decoder": "training", "libraries": libraries}

    def decode(self, path: str) -> np.ndarray:
        """The file's pixels, ``(side, side, 3) uint8`` RGB 0..255. Raises ImageError."""
        pixels = self._fast(path)
        return self._reference.decode(path) if pixels is None else pixels

    def _fast(self, path: str) -> np.ndarray | None:
        """None where the reference has to do it.

        Decoders raise nearly any exception on damaged files; each means that the reference looks
        at the file and says what is wrong, or that nothing is.
        """
        from PIL.JpegImagePlugin import JpegImageFile

        try:
            data = _jpeg_content(path)
            if data is None:
                return None
            with JpegImageFile(io.BytesIO(data)) as header:
                if header.mode not in ("RGB", "L") or _too_large(header.size):
                    return None
                return self._cropped(data, header)
        except Exception:
            return None

    def _cropped(self, data: bytes, header: Any) -> np.ndarray:
        from PIL import Image

        side = self.side
        box = crop_box(header.width, header.height, self._preprocessing)
        eighths = self._eighths(box)
        pixels = self._reader.read(data, header.size, eighths)
        left, top, right, bottom = (edge * eighths / 8 for edge in box)
        image = None
        if int(right - left) == int(bottom - top) == side:
            pixels = _cut_out(pixels, ((left + right) / 2, (top + bottom) / 2), side)
            if pixels.ndim == 2 or _may_be_turned(header):
                image = Image.fromarray(pixels)
        else:
            resample = Image.Resampling[self._preprocessing.resample.upper()]
            image = Image.fromarray(pixels).resize(
                (side, side), resample, (left, top, right, bottom)
            )
        if image is None:
            return pixels
        # A centred square can be turned after it was cropped; turning needs the EXIF data alone.
        image.info = dict(header.info)
        return np.array(upright_rgb(image, self._preprocessing), dtype=np.uint8)

    def _eighths(self, box: Box) -> int:
        """The smallest scale of which the box still has ``side`` pixels; else the whole size."""
        shorter = min(box[2] - box[0], box[3] - box[1])
        fitting = (scale for scale in self._reader.eighths if shorter * scale / 8 >= self.side)
        return next(fitting, 8)


def _jpeg_content(path: str) -> bytes | None:
    """The bytes of a JPEG file, None for another one; a named pipe is not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or os.pread(handle, 3, 0) != _JPEG_MAGIC:
            return None
        return os.read(handle, facts.st_size)
    finally:
        os.close(handle)


def _too_large(size: tuple[int, int]) -> bool:
    return size[0] * size[1] > _MAX_FAST_PIXELS


def _may_be_turned(header: Any) -> bool:
    """Whether there is anything that can hold an orientation."""
    return "exif" in header.info or "xmp" in header.info


def _cut_out(pixels: np.ndarray, centre: tuple[float, float], side: int) -> np.ndarray:
    """The square around ``centre`` (x, y), moved to whole pixels that the picture has."""
    height, width = pixels.shape[:2]
    left = min(max(round(centre[0] - side / 2), 0), width - side)
    top = min(max(round(centre[1] - side / 2), 0), height - side)
    return pixels[top : top + side, left : left + side]
