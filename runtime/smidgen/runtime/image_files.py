"""Image files, opened and decoded: what is read, within which limits, with our own errors.

``decode`` gives a fully loaded Pillow image; what becomes of it stands in preprocessing.py.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from smidgen.runtime.errors import (
    ImageArrayInvalid,
    ImageError,
    ImageTooLarge,
    ImageUnreadable,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Pixels = npt.NDArray[np.uint8]
    ImageSource = Union[
        str, os.PathLike[str], bytes, bytearray, memoryview, Image.Image, npt.NDArray[Any]
    ]

MAX_PIXELS = 100_000_000
"""Default limit of width x height, checked from the header before anything is decoded."""

FORMATS = {
    "JPEG": "Jpeg",
    "PNG": "Png",
    "BMP": "Bmp",
    "GIF": "Gif",
    "PPM": "Ppm",
    "WEBP": "WebP",
    "TIFF": "Tiff",
    "AVIF": "Avif",
    "HEIF": "",
}
"""The formats that are read, with Pillow's module for each. HEIF only where the application has
registered a reader (pillow-heif). Pillow's other forty readers never see a byte: few pictures to
classify come as PSD, EPS, FLI or JPEG 2000, and each reader is one more way in for a bad file."""

SHARE_OF_LIMIT = {"JPEG": 0.8, "MPO": 0.8, "WEBP": 0.5, "AVIF": 0.5, "HEIF": 0.5}
"""Share of ``max_pixels`` for formats whose decoders hold more than the picture, so that a file
takes less than 1 GB. Measured, bytes for each pixel: progressive JPEG 10, WebP 17, others 8."""

MAX_SCANS = 200
"""JPEG scans (passes over the picture) of one file. Encoders write up to about 20; a file with
thousands of empty ones is small and takes minutes."""

_RUN_BY_OTHER_PROGRAMS = ("EPS",)
"""Formats for which Pillow starts another program (Ghostscript) on the file's content."""
_EXIF_ORIENTATION = 0x0112
_JPEG_START = b"\xff\xd8\xff"
_GLOBALS_LOCK = threading.Lock()


def decode(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    before_pixels: Optional[Callable[[Image.Image], None]] = None,
) -> Image.Image:
    """The picture of ``source``, all of it in memory, in the mode in which the file stores it.

    Args:
        source: a path, the bytes of an image file of one of ``FORMATS``, or a Pillow image (loaded,
            then returned). Of an animated file the first frame is taken.
        max_pixels: limit of width x height; a share of it for the formats of ``SHARE_OF_LIMIT``.
        before_pixels: called with the opened file when its size is known to be within the limit,
            before its pixels are decoded.

    Raises:
        ImageUnreadable: no such file, no image, or a truncated or corrupt one.
        ImageTooLarge: more than ``max_pixels``.
        ImageArrayInvalid: ``source`` is none of the above.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise ImageUnreadable("the image has 0 bytes: expected the content of an image file")
        name = f"{len(source)} bytes of image data"
        return _load(io.BytesIO(source), name, max_pixels, before_pixels)
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        try:
            if not stat.S_ISREG(Path(name).stat().st_mode):  # open() would wait on a named pipe
                raise ImageUnreadable(f"{name}: not a file; expected an image file")
            with open(name, "rb") as stream:
                return _load(stream, name, max_pixels, before_pixels)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageUnreadable(f"{name}: cannot be opened ({reason}); check the path") from error
    return _load_given(source, max_pixels)


def pillow(purpose: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImageError(
            f"{purpose} needs Pillow, which is not installed: "
            'run `pip install "smidgen-runtime[image]"`'
        ) from error
    return Image


@contextlib.contextmanager
def _own_limits() -> Iterator[None]:
    """Pillow's size warning is replaced by our limit while a header is read.

    Warning filters are global to the process, so our threads take turns for this moment.
    """
    from PIL import Image

    with _GLOBALS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@contextlib.contextmanager
def _whole_pictures_only() -> Iterator[None]:
    """Refuse truncated pictures even where the application told Pillow to fill them with grey."""
    from PIL import ImageFile

    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _GLOBALS_LOCK:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _open(library: Any, stream: Any) -> Any:
    """Pillow's ``open`` for ``FORMATS`` alone: those that it has loaded, then the others' modules.

    Pillow itself would import all its readers for a format that is not among its first five.
    """
    if stream.read(3) == _JPEG_START:  # spares the import of four other readers
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            stream.seek(0)
            return importlib.import_module("PIL.JpegImagePlugin").jpeg_factory(stream, "")
    stream.seek(0)
    library.preinit()
    loaded = [name for name in FORMATS if name in library.OPEN]
    try:
        return library.open(stream, formats=loaded)
    except library.UnidentifiedImageError:
        for module in filter(None, FORMATS.values()):
            with contextlib.suppress(ImportError):
                importlib.import_module(f"PIL.{module}ImagePlugin")
        others = [name for name in FORMATS if name in library.OPEN and name not in loaded]
        if not others:
            raise
        stream.seek(0)
        return library.open(stream, formats=others)


def _check_scans(name: str, image: Image.Image, stream: Any) -> None:
    """Refuse a JPEG of too many scans; counts 0xFFDA, which entropy-coded data cannot hold."""
    if image.format not in ("JPEG", "MPO") or not image.info.get("progressive"):
        return  # in other files every pass costs bytes for each block
    position = stream.tell()
    stream.seek(0)
    count = stream.read().count(b"\xff\xda")
    stream.seek(position)
    if count > MAX_SCANS:
        raise ImageUnreadable(
            f"{name}: a JPEG of {count} scans, the limit is {MAX_SCANS}; save the picture anew"
        )


def _load(
    stream: Any,
    name: str,
    max_pixels: int,
    before_pixels: Optional[Callable[[Image.Image], None]],
) -> Image.Image:
    """Header, limit, then every pixel. Pillow's readers raise nearly any exception on bad data."""
    library = pillow("reading an image")
    try:
        with _own_limits():
            image: Image.Image = _open(library, stream)
    except library.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        count = int(found.group()) if found else 0
        raise _too_large(name, f"{count:,} pixels", max_pixels) from error
    except library.UnidentifiedImageError as error:
        raise ImageUnreadable(
            f"{name}: not an image that Pillow knows, or of a format that is not read; "
            "expected JPEG, PNG, WebP or BMP (GIF, TIFF, PPM and AVIF are read too)"
        ) from error
    except Exception as error:
        raise unreadable(name, error) from error
    share = SHARE_OF_LIMIT.get(image.format or "", 1.0)
    check_size(name, image.width, image.height, int(max_pixels * share))
    _check_scans(name, image, stream)
    try:
        if before_pixels is not None:
            before_pixels(image)
        with _whole_pictures_only():
            image.load()
    except Exception as error:
        raise unreadable(name, error) from error
    exif_orientation(image)  # read now: some formats need the stream, which is closed afterwards
    return image


def _load_given(source: Any, max_pixels: int) -> Image.Image:
    library = pillow("reading an image")
    if not isinstance(source, library.Image):
        raise ImageArrayInvalid(
            f"cannot read a picture from {type(source).__name__}: expected a path, bytes, "
            "a Pillow image or a numpy array"
        )
    if source.format in _RUN_BY_OTHER_PROGRAMS:
        raise ImageUnreadable(f"{source.format} is a program, not a picture; save it as PNG")
    check_size("the Pillow image", source.width, source.height, max_pixels)
    try:
        with _whole_pictures_only():
            source.load()
    except Exception as error:
        raise unreadable("the Pillow image", error) from error
    return source  # type: ignore[no-any-return]


def unreadable(name: str, error: Exception) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageTooLarge(f"{name}: too large for this machine's memory; scale it down first")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageUnreadable(
        f"{name}: truncated or corrupt image ({reason}); replace it by a whole one"
    )


def _too_large(name: str, size: str, max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(f"{name}: {size}, the limit is {max_pixels:,} pixels; scale it down first")


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)
    if width * height == 0:
        raise ImageUnreadable(f"{name}: the picture is {width} x {height} pixels; it has no pixel")


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 (upright) where there is none or the EXIF data is garbage."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # any exception: the reader meets arbitrary bytes
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
