"""How a picture becomes the input tensor: the one definition for training, gates and devices.

``decode`` (image_files.py) reads a file into a fully loaded Pillow image; ``load_pixels`` carries
out the four steps that ``Preprocessing`` (manifest.py) lists and returns ``(height, width, 3)
uint8, RGB, 0..255``. Pillow is imported inside the functions: an array that already has the input
size needs no Pillow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np

from smidgen.runtime.errors import ImageArrayInvalid, ImageUnreadable
from smidgen.runtime.image_files import (
    MAX_PIXELS,
    check_size,
    decode,
    exif_orientation,
    pillow,
    unreadable,
)
from smidgen.runtime.manifest import Preprocessing

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    from smidgen.runtime.image_files import ImageSource, Pixels

__all__ = [
    "MAX_PIXELS",
    "ImageSource",
    "Pixels",
    "array_picture",
    "crop_box",
    "decode",
    "load_pixels",
    "pillow_filter",
    "to_rgb",
    "turned",
    "upright_rgb",
]

_BAND_PIXELS = 1_000_000


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
        image = array_picture(source, preprocessing, max_pixels)
        if isinstance(image, np.ndarray):
            return image
        rgb = to_rgb(image, preprocessing.background)
    else:
        rgb = upright_rgb(decode(source, max_pixels=max_pixels), preprocessing)
    box = crop_box(rgb.width, rgb.height, preprocessing)
    size = (preprocessing.width, preprocessing.height)
    return np.array(rgb.resize(size, pillow_filter(preprocessing), box), dtype=np.uint8)


def array_picture(
    array: npt.NDArray[Any], preprocessing: Preprocessing, max_pixels: int
) -> Union[Image.Image, Pixels]:
    """An array source (see ``load_pixels``) as a picture, or as the input tensor if it is one.

    Raises ImageArrayInvalid, ImageTooLarge.
    """
    checked = _eight_bit_array(array, max_pixels)
    ready = _ready_made(checked, preprocessing)
    if ready is not None:
        return ready
    return pillow("resizing an array").fromarray(checked)  # type: ignore[no-any-return]


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
    orientation = exif_orientation(image) if preprocessing.exif_orientation else 1
    rgb = to_rgb(image, preprocessing.background)
    del image  # to RGB first: of a large picture in another mode one copy less at a time
    return turned(rgb, orientation)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """``image`` as it should be seen. Orientations: EXIF 2.3, tag 0x0112."""
    turn = pillow("turning an image").Transpose
    method = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Any Pillow mode as 8-bit RGB, transparent pixels composited over ``background``."""
    library = pillow("reading an image")

    def opaque(band: Image.Image) -> Any:
        behind = library.new("RGBA", band.size, (*background, 255))
        return library.alpha_composite(behind, band.convert("RGBA")).convert("RGB")

    try:
        if image.mode == "RGB" and "transparency" not in image.info:
            return image
        if image.mode == "F" or image.mode.startswith("I"):
            factor = _level_factor(image)
            return _banded(
                image, lambda band: library.fromarray(_levels(band, factor)).convert("RGB")
            )
        if _has_transparency(image):
            return _banded(image, opaque)
        return image.convert("RGB")
    except Exception as error:
        if isinstance(error, MemoryError):
            raise unreadable("the picture", error) from error
        raise ImageUnreadable(
            f"a picture of Pillow mode {image.mode!r} cannot become RGB "
            f"({str(error)[:80]}); convert it first"
        ) from error


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """``image`` in bands of whole rows, each with its top."""
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _banded(image: Image.Image, convert: Callable[[Image.Image], Any]) -> Image.Image:
    """What ``convert`` makes of each pixel, band by band: it may need 20 bytes for each."""
    rgb: Image.Image = pillow("reading an image").new("RGB", image.size)
    for top, band in _bands(image):
        rgb.paste(convert(band), (0, top))
    return rgb


def _has_transparency(image: Image.Image) -> bool:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return True
    return image.palette is not None and image.palette.mode.endswith("A")


def _level_factor(image: Image.Image) -> float:
    """Mode F has no agreed range: 0..1 when all values lie in it (255), else 0..255 (1)."""
    if image.mode != "F":
        return 1.0
    parts = (np.nan_to_num(np.asarray(band), nan=0.0) for _, band in _bands(image))
    return 255.0 if all(part.min() >= 0.0 and part.max() <= 1.0 for part in parts) else 1.0


def _levels(image: Image.Image, factor: float) -> Pixels:
    """Grey of more than 8 bits as ``(H, W) uint8``.

    Modes I and I;16 (Pillow uses both for 16-bit files): 0..65535, values outside are clipped.
    Mode F: times ``factor``, then clipped to 0..255; NaN is black.
    """
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0) * factor
        return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)
    return _from_sixteen_bit(np.asarray(image).astype(np.int64))


def _from_sixteen_bit(levels: npt.NDArray[Any]) -> Pixels:
    """0..65535 to 0..255, rounded to the nearest: 65535 = 255 * 257."""
    return ((np.clip(levels.astype(np.int64), 0, 65535) + 128) // 257).astype(np.uint8)


def pillow_filter(preprocessing: Preprocessing) -> Any:
    """Pillow's antialiased filter for ``preprocessing.resample``."""
    filters = pillow("resizing an image").Resampling
    return {"bilinear": filters.BILINEAR, "bicubic": filters.BICUBIC}[preprocessing.resample]


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
    check_size("the array", shape[1], shape[0], max_pixels)
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
