"""How a picture becomes the input tensor: the one definition for training, gates and devices.

``decode`` reads a file into a fully loaded Pillow image; ``load_pixels`` carries out the four steps
that ``Preprocessing`` (manifest.py) lists and returns ``(height, width, 3) uint8, RGB, 0..255``.
Pillow is imported inside the functions: an array that already has the input size needs no Pillow.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from smidgen.runtime.errors import (
    ImageArrayInvalid,
    ImageError,
    ImageTooLarge,
    ImageUnreadable,
)
from smidgen.runtime.manifest import Preprocessing

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    Pixels = npt.NDArray[np.uint8]
    ImageSource = Union[
        str, os.PathLike[str], bytes, bytearray, memoryview, Image.Image, npt.NDArray[Any]
    ]

MAX_PIXELS = 100_000_000
"""Default limit of width x height, checked from the header before anything is decoded."""

_RUN_BY_OTHER_PROGRAMS = ("EPS",)
"""Formats for which Pillow starts another program (Ghostscript) on the file's content."""
_EXIF_ORIENTATION = 0x0112
_GLOBALS_LOCK = threading.Lock()


def decode(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture of ``source``, all of it in memory, in the mode in which the file stores it.

    Args:
        source: a path, the bytes of an image file, or a Pillow image (loaded, then returned).
            Of an animated file the first frame is taken.
        max_pixels: limit of width x height.

    Raises:
        ImageUnreadable: no such file, no image, or a truncated or corrupt one.
        ImageTooLarge: more than ``max_pixels``.
        ImageArrayInvalid: ``source`` is none of the above.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise ImageUnreadable("the image has 0 bytes: expected the content of an image file")
        return _load(io.BytesIO(source), f"{len(source)} bytes of image data", max_pixels)
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
        try:
            if not stat.S_ISREG(Path(name).stat().st_mode):  # open() would wait on a named pipe
                raise ImageUnreadable(f"{name}: not a file; expected an image file")
            with open(name, "rb") as stream:
                return _load(stream, name, max_pixels)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageUnreadable(f"{name}: cannot be opened ({reason}); check the path") from error
    return _load_given(source, max_pixels)


def load_pixels(
    source: ImageSource, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """``source`` as the model's input: ``(height, width, 3) uint8, RGB, 0..255``, C order.

    Args:
        source: what ``decode`` takes, or an array: ``(H, W)`` grey, ``(H, W, 3)`` RGB or
            ``(H, W, 4)`` RGBA of uint8 0..255 or uint16 0..65535. Arrays have no EXIF orientation.
        preprocessing: the four steps, from the manifest.
        max_pixels: limit of width x height of the source.

    Raises:
        ImageUnreadable, ImageTooLarge: as ``decode``.
        ImageArrayInvalid: an array of another shape or dtype.
    """
    if isinstance(source, np.ndarray):
        array = _eight_bit_array(source, max_pixels)
        ready = _ready_made(array, preprocessing)
        if ready is not None:
            return ready
        image = _pillow("resizing an array").fromarray(array)
    else:
        image = decode(source, max_pixels=max_pixels)
        if preprocessing.exif_orientation:
            image = _upright(image)
    box = crop_box(image.width, image.height, preprocessing)
    rgb = _to_rgb(image, preprocessing.background)
    size = (preprocessing.width, preprocessing.height)
    return np.array(rgb.resize(size, _filter(preprocessing.resample), box), dtype=np.uint8)


def crop_box(
    width: int, height: int, preprocessing: Preprocessing
) -> tuple[float, float, float, float]:
    """The part of a ``width`` x ``height`` picture that is taken: left, top, right, bottom.

    In pixels of the upright picture, fractions included: the resize samples exactly this box.
    """
    if preprocessing.fit == "stretch":
        return 0.0, 0.0, float(width), float(height)
    side = preprocessing.crop_fraction * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def upright_rgb(
    image: Image.Image,
    preprocessing: Preprocessing,
) -> Image.Image:
    """Steps 1 and 2 alone: ``image`` turned and in 8-bit RGB, in its own size."""
    turned = _upright(image) if preprocessing.exif_orientation else image
    return _to_rgb(turned, preprocessing.background)


def _pillow(purpose: str) -> Any:
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


def _load(stream: Any, name: str, max_pixels: int) -> Image.Image:
    """Header, limit, then every pixel. Pillow's readers raise nearly any exception on bad data."""
    pillow = _pillow("reading an image")
    try:
        with _own_limits():
            image: Image.Image = pillow.open(stream)
    except pillow.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        count = int(found.group()) if found else 0
        raise _too_large(name, f"{count:,} pixels", max_pixels) from error
    except pillow.UnidentifiedImageError as error:
        raise ImageUnreadable(
            f"{name}: not an image that Pillow knows; expected JPEG, PNG, WebP or BMP"
        ) from error
    except Exception as error:
        raise _unreadable(name, error) from error
    if image.format in _RUN_BY_OTHER_PROGRAMS:
        raise ImageUnreadable(f"{name}: {image.format} is a program, not a picture; save it as PNG")
    _check_size(name, image.width, image.height, max_pixels)
    try:
        with _whole_pictures_only():
            image.load()
    except Exception as error:
        raise _unreadable(name, error) from error
    _orientation(image)  # read now: some formats need the stream, which is closed afterwards
    return image


def _load_given(source: Any, max_pixels: int) -> Image.Image:
    pillow = _pillow("reading an image")
    if not isinstance(source, pillow.Image):
        raise ImageArrayInvalid(
            f"cannot read a picture from {type(source).__name__}: expected a path, bytes, "
            "a Pillow image or a numpy array"
        )
    _check_size("the Pillow image", source.width, source.height, max_pixels)
    try:
        with _whole_pictures_only():
            source.load()
    except Exception as error:
        raise _unreadable("the Pillow image", error) from error
    return source  # type: ignore[no-any-return]


def _unreadable(name: str, error: Exception) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageTooLarge(f"{name}: too large for this machine's memory; scale it down first")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageUnreadable(
        f"{name}: truncated or corrupt image ({reason}); replace it by a whole one"
    )


def _too_large(name: str, size: str, max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(f"{name}: {size}, the limit is {max_pixels:,} pixels; scale it down first")


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)
    if width * height == 0:
        raise ImageUnreadable(f"{name}: the picture is {width} x {height} pixels; it has no pixel")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 (upright) where there is none or the EXIF data is garbage."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # any exception: the reader meets arbitrary bytes
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image) -> Image.Image:
    """``image`` as it should be seen. Orientations: EXIF 2.3, tag 0x0112."""
    turn = _pillow("turning an image").Transpose
    method = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Any Pillow mode as 8-bit RGB, transparent pixels composited over ``background``."""
    pillow = _pillow("reading an image")
    try:
        if image.mode == "RGB" and "transparency" not in image.info:
            return image
        if image.mode == "F" or image.mode.startswith("I"):
            return pillow.fromarray(_eight_bit_levels(image)).convert("RGB")  # type: ignore[no-any-return]
        if _has_transparency(image):
            behind = pillow.new("RGBA", image.size, (*background, 255))
            return pillow.alpha_composite(behind, image.convert("RGBA")).convert("RGB")  # type: ignore[no-any-return]
        return image.convert("RGB")
    except Exception as error:
        raise ImageUnreadable(
            f"a picture of Pillow mode {image.mode!r} cannot become RGB "
            f"({str(error)[:80]}); convert it first"
        ) from error


def _has_transparency(image: Image.Image) -> bool:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return True
    return image.palette is not None and image.palette.mode.endswith("A")


def _eight_bit_levels(image: Image.Image) -> Pixels:
    """Grey of more than 8 bits as ``(H, W) uint8``.

    Modes I and I;16 (Pillow uses both for 16-bit files): 0..65535, values outside are clipped.
    Mode F has no agreed range: 0..1 when all values lie in it, else 0..255, clipped; NaN is black.
    """
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0)
        if levels.min() >= 0.0 and levels.max() <= 1.0:
            levels = levels * 255.0
        return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)
    return _from_sixteen_bit(np.asarray(image).astype(np.int64))


def _from_sixteen_bit(levels: npt.NDArray[Any]) -> Pixels:
    """0..65535 to 0..255, rounded to the nearest: 65535 = 255 * 257."""
    return ((np.clip(levels.astype(np.int64), 0, 65535) + 128) // 257).astype(np.uint8)


def _filter(name: str) -> Any:
    """Pillow's antialiased filter for a ``Preprocessing.resample``."""
    filters = _pillow("resizing an image").Resampling
    return {"bilinear": filters.BILINEAR, "bicubic": filters.BICUBIC}[name]


def _eight_bit_array(array: npt.NDArray[Any], max_pixels: int) -> Pixels:
    """An array source checked and as uint8: ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``."""
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (3, 4)):
        hint = ""
        if array.ndim == 3 and shape[0] in (3, 4):
            hint = "; it looks channels-first: pass array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "; pass one picture at a time, or classify_batch(list(array))"
        raise ImageArrayInvalid(
            f"array of shape {shape}: expected (H, W), (H, W, 3) or (H, W, 4){hint}"
        )
    if array.size == 0:
        raise ImageArrayInvalid(f"array of shape {shape}: it has no pixel")
    _check_size("the array", shape[1], shape[0], max_pixels)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return _from_sixteen_bit(array)
    hint = ""
    if array.dtype.kind == "f":
        hint = "; floats have no agreed range: for 0..1 pass (array * 255).round().astype(np.uint8)"
    raise ImageArrayInvalid(
        f"array of dtype {array.dtype}: expected uint8 0..255 or uint16 0..65535{hint}"
    )


def _ready_made(array: Pixels, preprocessing: Preprocessing) -> Optional[Pixels]:
    """A grey or RGB array for which cropping and resizing would change nothing, else None."""
    height, width = array.shape[:2]
    whole = (0.0, 0.0, float(width), float(height))
    fits = (width, height) == (preprocessing.width, preprocessing.height)
    if not fits or crop_box(width, height, preprocessing) != whole or array.shape[2:] == (4,):
        return None
    if array.ndim == 2:
        return np.repeat(array[:, :, np.newaxis], 3, axis=2)
    same: Pixels = array.copy()
    return same
