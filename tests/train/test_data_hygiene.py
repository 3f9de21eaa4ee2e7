"""Odd image files on their way into a dataset: right pixels, or skipped with the reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smidgen.runtime.manifest import Preprocessing
from smidgen.train import DataRecipe
from smidgen.train.data import SPLITS, Example, divide
from smidgen.train.data.scan import take_inventory
from smidgen.train.pixels import CacheFolder, PixelSource, TrainingDecoder, open_pixels
from smidgen.train.progress import SilentProgress

SIDE = 32
SIZE = Preprocessing(width=SIDE, height=SIDE)
RED, BLUE = (200, 30, 40), (20, 60, 220)
PICTURE = Image.new("RGB", (SIDE, SIDE), RED)
PICTURE.paste(BLUE, (0, 0, SIDE, 8))  # blue above: shows how it lies
RGB = np.asarray(PICTURE)


def saved(picture: Image.Image, form: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **settings)
    return stream.getvalue()


def cmyk() -> bytes:
    return saved(PICTURE.convert("CMYK"), "JPEG", quality=98)


def sixteen_bit() -> bytes:
    levels = np.full((SIDE, SIDE), 257 * 90, np.uint16)
    return saved(Image.fromarray(levels), "PNG")


def palette() -> bytes:
    return saved(PICTURE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG")


def alpha() -> bytes:
    see_through = PICTURE.convert("RGBA")
    see_through.paste((9, 9, 9, 0), (0, 8, SIDE, SIDE))
    return saved(see_through, "PNG")


def animated() -> bytes:
    others = [Image.new("RGB", (SIDE, SIDE), "green"), Image.new("RGB", (SIDE, SIDE), "white")]
    return saved(PICTURE, "WEBP", save_all=True, append_images=others, lossless=True)


def turned_by_exif() -> bytes:
    lying = PICTURE.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    return saved(lying, "JPEG", quality=98, exif=exif, subsampling=0)


GREY = np.full((SIDE, SIDE, 3), 90, np.uint8)
ON_WHITE = RGB.copy()
ON_WHITE[8:] = 255
READABLE: dict[str, tuple[Callable[[], bytes], np.ndarray, int]] = {
    "cmyk.jpg": (cmyk, RGB, 6),
    "sixteen_bit.png": (sixteen_bit, GREY, 0),
    "palette.png": (palette, RGB, 0),
    "alpha.png": (alpha, ON_WHITE, 0),
    "animated.webp": (animated, RGB, 0),
    "turned.jpg": (turned_by_exif, RGB, 6),
}
"""How the file is made, the pixels that are right, and how far a level may be off."""

WHOLE = saved(Image.effect_noise((64, 64), 80), "JPEG")
UNREADABLE = {
    "empty.jpg": (b"", "not an image that Pillow knows"),
    "cut.jpg": (WHOLE[: len(WHOLE) // 2], "truncated or corrupt image"),
    "text.png": (b"this is no picture", "not an image that Pillow knows"),
    "damaged.png": (palette()[:60] + b"\0" * 40 + palette()[100:], "truncated or corrupt image"),
}


@pytest.fixture
def folder(make_folder) -> Path:  # type: ignore[no-untyped-def]
    made: Path = make_folder("photos", {"red": 6, "blue": 6})
    for name, (make, _, _) in READABLE.items():
        (made / "red" / name).write_bytes(make())
    for name, (content, _) in UNREADABLE.items():
        (made / "blue" / name).write_bytes(content)
    return made


def opened(folder: Path, cache: Path) -> tuple[dict[str, Example], PixelSource]:
    found = take_inventory(folder, DataRecipe(str(folder))).found
    examples = [item.example for item in found]
    source = open_pixels(examples, TrainingDecoder(SIZE), SilentProgress(), CacheFolder(cache))
    return {Path(example.path).name: example for example in examples}, source


def test_odd_files_give_the_right_pixels(folder: Path, tmp_path: Path) -> None:
    examples, source = opened(folder, tmp_path / "cache")
    for name, (_, wanted, tolerance) in READABLE.items():
        (pixels,) = source.take(source.rows_of([examples[name]]))
        # Where blue meets red JPEG blurs: that edge is left out.
        differences = np.abs(pixels.astype(int) - wanted)[[*range(6), *range(10, SIDE)]]
        assert differences.max() <= tolerance, name
        assert np.abs(np.rot90(pixels).astype(int) - RGB).max() > 100, name  # a fault is seen


def test_broken_files_are_skipped_with_their_reason(folder: Path, tmp_path: Path) -> None:
    examples, source = opened(folder, tmp_path / "cache")
    assert set(source.unreadable) == {examples[name].sha256 for name in UNREADABLE}
    recipe = DataRecipe(str(folder))
    dataset = divide(take_inventory(folder, recipe).without(source.unreadable), recipe.shares)
    reasons = {Path(item.path).name: item.reason for item in dataset.skipped}
    assert set(reasons) == set(UNREADABLE)
    for name, (_, reason) in UNREADABLE.items():
        assert reasons[name].startswith(reason), name
        assert str(folder) not in reasons[name]
    assert sum(len(dataset.split(name)) for name in SPLITS) == 12 + len(READABLE)
