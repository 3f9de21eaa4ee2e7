"""Pixels: exact arrays for every orientation, mode and kind of source; refusals in one line."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.runtime import (
    ImageArrayInvalid,
    ImageError,
    ImageTooLarge,
    ImageUnreadable,
    Preprocessing,
)
from smidgen.runtime.preprocessing import crop_box, decode, load_pixels

Image = pytest.importorskip("PIL.Image")
ImageFile = pytest.importorskip("PIL.ImageFile")
ImageOps = pytest.importorskip("PIL.ImageOps")

GENERATOR = np.random.default_rng(7)
PICTURE = GENERATOR.integers(0, 256, (5, 7, 3), dtype=np.uint8)
TURNED = {
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.transpose(1, 0, 2),
    6: np.rot90(PICTURE, -1),
    7: PICTURE[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(PICTURE, 1),
}


def as_is(width: int, height: int, **changes: Any) -> Preprocessing:
    """The whole picture in its own size."""
    return Preprocessing(width=width, height=height, fit="stretch", **changes)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(PICTURE), kind, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_array(orientation: int) -> None:
    upright = TURNED[orientation]
    height, width = upright.shape[:2]
    found = load_pixels(with_orientation(orientation), as_is(width, height))
    np.testing.assert_array_equal(found, upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_pillows_own_in_jpeg(orientation: int) -> None:
    data = with_orientation(orientation, "JPEG")
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = load_pixels(data, as_is(upright.shape[1], upright.shape[0]))
    np.testing.assert_array_equal(found, upright)


def test_orientation_is_ignored_when_the_manifest_says_so() -> None:
    found = load_pixels(with_orientation(6), as_is(7, 5, exif_orientation=False))
    np.testing.assert_array_equal(found, PICTURE)
    assert not np.array_equal(TURNED[3], PICTURE)  # the planted fault would show


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_garbage_exif_is_no_orientation() -> None:
    data = encoded(Image.fromarray(PICTURE), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\x07" * 40)
    np.testing.assert_array_equal(load_pixels(data, as_is(7, 5)), PICTURE)


GREY = np.array([[0, 1, 128], [200, 254, 255]], np.uint8)
GREY_RGB = np.repeat(GREY[:, :, None], 3, axis=2)


def sixteen_bit() -> Any:
    return Image.fromarray(GREY.astype(np.uint16) * 257)


def palette(**info: Any) -> Any:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    image.info.update(info)
    return image


def float_picture(scale: float) -> Any:
    return Image.fromarray((GREY / 255 * scale).astype(np.float32))


def rgba(alpha: int) -> Any:
    return Image.fromarray(np.array([[[100, 0, 200, alpha]]], np.uint8))


MODES = {
    "L": (Image.fromarray(GREY), GREY_RGB),
    "RGB": (Image.fromarray(GREY_RGB), GREY_RGB),
    "1": (Image.fromarray(GREY > 127), np.where(GREY_RGB > 127, 255, 0)),
    "I;16": (sixteen_bit(), GREY_RGB),
    "I": (Image.fromarray(GREY.astype(np.int32) * 257), GREY_RGB),
    "I, outside 16 bit": (
        Image.fromarray(np.array([[-5, 70000]], np.int32)),
        [[[0] * 3, [255] * 3]],
    ),
    "F, 0..1": (float_picture(1.0), GREY_RGB),
    "F, 0..255": (float_picture(255.0), GREY_RGB),
    "F, NaN": (Image.fromarray(np.array([[np.nan, 300]], np.float32)), [[[0] * 3, [255] * 3]]),
    "P": (palette(), [[[10, 20, 30], [200, 100, 50]]]),
    "P, transparent index": (palette(transparency=0), [[[9, 8, 7], [200, 100, 50]]]),
    "P, transparency bytes": (palette(transparency=b"\xff\x00"), [[[10, 20, 30], [9, 8, 7]]]),
    "RGBA, clear": (rgba(0), [[[9, 8, 7]]]),
    "RGBA, opaque": (rgba(255), [[[100, 0, 200]]]),
    # (51 * x + 204 * background) / 255: 0.2 * (100, 0, 200) + 0.8 * (9, 8, 7)
    "RGBA, a fifth": (rgba(51), [[[27, 6, 46]]]),
    "LA": (Image.fromarray(np.array([[[50, 0]]], np.uint8)), [[[9, 8, 7]]]),
    "CMYK": (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), [[[0, 255, 255]]]),
    "YCbCr": (Image.new("YCbCr", (1, 1), (255, 128, 128)), [[[255, 255, 255]]]),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_exact_rgb(name: str) -> None:
    image, expected = MODES[name]
    size = as_is(image.width, image.height, background=(9, 8, 7))
    np.testing.assert_array_equal(load_pixels(image, size), np.asarray(expected))


def test_a_colour_declared_transparent_shows_the_background() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    data = encoded(image, transparency=(1, 2, 3))
    found = load_pixels(data, as_is(2, 1, background=(9, 8, 7)))
    np.testing.assert_array_equal(found, [[[9, 8, 7], [4, 5, 6]]])


def test_sixteen_bit_files_round_to_the_nearest_level() -> None:
    levels = np.array([[0, 128, 129, 65406, 65407, 65535]], np.uint16)
    found = load_pixels(encoded(Image.fromarray(levels)), as_is(6, 1))
    np.testing.assert_array_equal(found[0, :, 0], [0, 0, 1, 254, 255, 255])
    np.testing.assert_array_equal(load_pixels(levels, as_is(6, 1)), found)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert load_pixels(data, as_is(4, 4))[0, 0].tolist() == [255, 0, 0], kind


# --- crop and resize ---------------------------------------------------------------------------


def reference_resize(pixels: Any, box: Any, size: tuple[int, int], resample: str) -> Any:
    """Antialiased resampling from the filters' definitions, rounded between the passes."""

    def cubic(x: float) -> float:
        x, a = abs(x), -0.5
        if x < 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0

    def triangle(x: float) -> float:
        return max(0.0, 1 - abs(x))

    kernel, reach = (cubic, 2.0) if resample == "bicubic" else (triangle, 1.0)

    def matrix(length: int, low: float, high: float, out: int) -> Any:
        scale = (high - low) / out
        stretch = max(scale, 1.0)
        weights = np.zeros((out, length))
        for row in range(out):
            centre = low + (row + 0.5) * scale
            first = max(0, math.floor(centre - reach * stretch + 0.5))
            last = min(length, math.floor(centre + reach * stretch + 0.5))
            for column in range(first, last):
                weights[row, column] = kernel((column - centre + 0.5) / stretch)
        return weights / weights.sum(axis=1, keepdims=True)

    left, top, right, bottom = box
    across = matrix(pixels.shape[1], left, right, size[0])
    down = matrix(pixels.shape[0], top, bottom, size[1])
    middle = np.clip(np.rint(np.einsum("oc,rcd->rod", across, pixels.astype(float))), 0, 255)
    return np.clip(np.einsum("or,rcd->ocd", down, middle), 0, 255)


SMOOTH = np.stack(
    [
        127 + 120 * np.sin(np.add.outer(np.arange(37) / 5, np.arange(53) / 7)),
        127 + 120 * np.cos(np.add.outer(np.arange(37) / 3, -np.arange(53) / 4)),
        np.tile(np.linspace(0, 255, 53), (37, 1)),
    ],
    axis=2,
).astype(np.uint8)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fraction", [1.0, 0.875, 0.61])
@pytest.mark.parametrize("side", [16, 64])
def test_crop_and_resize_agree_with_the_filters_definition(
    resample: Any, fraction: float, side: int
) -> None:
    size = Preprocessing(width=side, height=side, crop_fraction=fraction, resample=resample)
    found = load_pixels(SMOOTH, size).astype(float)
    box = crop_box(53, 37, size)
    expected = reference_resize(SMOOTH, box, (side, side), resample)
    assert np.abs(found - expected).max() <= 1.0
    shifted = tuple(edge + 0.5 for edge in box[:2]) + tuple(edge - 0.5 for edge in box[2:])
    planted = reference_resize(SMOOTH, shifted, (side, side), resample)
    assert np.abs(found - planted).max() > 2.0  # half a pixel off at the edges would be seen


def test_golden_resize() -> None:
    """Exact output of the whole chain: a fraction of a centred square, 37 x 53 to 3 x 2."""
    size = Preprocessing(width=3, height=2, crop_fraction=0.9)
    assert load_pixels(SMOOTH, size).tolist() == [
        [[80, 127, 71], [101, 124, 127], [174, 131, 183]],
        [[170, 132, 71], [158, 121, 127], [82, 132, 183]],
    ]


def test_the_box_is_centred_and_may_lie_between_pixels() -> None:
    assert crop_box(53, 37, Preprocessing(width=8, height=8)) == (8.0, 0.0, 45.0, 37.0)
    assert crop_box(10, 7, Preprocessing(width=8, height=8, crop_fraction=0.5)) == (
        3.25, 1.75, 6.75, 5.25,
    )  # fmt: skip
    assert crop_box(10, 7, as_is(8, 8)) == (0.0, 0.0, 10.0, 7.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_extreme_shapes_work(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 77, np.uint8)
    for fraction in (0.05, 0.3, 1.0):
        for fit in ("crop", "stretch"):
            size = Preprocessing(width=16, height=8, crop_fraction=fraction, fit=fit)
            found = load_pixels(pixels, size)
            assert found.shape == (8, 16, 3)
            assert (found == 77).all()


# --- sources -----------------------------------------------------------------------------------


def test_path_bytes_image_and_array_give_the_same_tensor(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(SMOOTH))
    path = tmp_path / "Bild ü.png"
    path.write_bytes(data)
    size = Preprocessing(width=24, height=24, crop_fraction=0.875)
    expected = load_pixels(SMOOTH, size)
    assert expected.dtype == np.uint8
    assert expected.flags.c_contiguous and expected.flags.writeable
    for source in (path, str(path), os.fsencode(path).decode(), data, bytearray(data),
                   memoryview(data), Image.open(path), SMOOTH.copy()):  # fmt: skip
        np.testing.assert_array_equal(load_pixels(source, size), expected)


def test_arrays_grey_rgb_and_rgba() -> None:
    np.testing.assert_array_equal(load_pixels(GREY, as_is(3, 2)), GREY_RGB)
    np.testing.assert_array_equal(load_pixels(GREY_RGB, as_is(3, 2)), GREY_RGB)
    clear = np.zeros((2, 3, 4), np.uint8)
    np.testing.assert_array_equal(
        load_pixels(clear, as_is(3, 2, background=(9, 8, 7))), np.tile([9, 8, 7], (2, 3, 1))
    )
    big_endian = (GREY.astype(np.uint16) * 257).astype(">u2")
    np.testing.assert_array_equal(load_pixels(big_endian, as_is(3, 2)), GREY_RGB)
    np.testing.assert_array_equal(load_pixels(GREY_RGB[::-1], as_is(3, 2)), GREY_RGB[::-1])


def test_the_result_is_a_copy() -> None:
    source = GREY_RGB.copy()
    load_pixels(source, as_is(3, 2))[:] = 0
    np.testing.assert_array_equal(source, GREY_RGB)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), r"dtype float32.*astype\(np.uint8\)"),
        (np.zeros((4, 4, 3), np.int64), "dtype int64"),
        (np.zeros((4, 4), bool), "dtype bool"),
        (np.zeros((3, 4, 5), np.uint8), "channels-first"),
        (np.zeros((4, 4, 2), np.uint8), "expected"),
        (np.zeros((1, 4, 4, 3), np.uint8), "one picture at a time"),
        (np.zeros(4, np.uint8), "expected"),
        (np.zeros((0, 4, 3), np.uint8), "no pixel"),
        (["not a picture"], "list"),
        (None, "NoneType"),
    ],
)
def test_wrong_arrays_are_refused(array: Any, words: str) -> None:
    with pytest.raises(ImageArrayInvalid, match=words) as caught:
        load_pixels(array, as_is(4, 4))
    assert "\n" not in str(caught.value)


# --- bad files ---------------------------------------------------------------------------------


def header_of_a_bomb(side: int) -> bytes:
    """A PNG that claims ``side`` x ``side`` pixels and has nearly none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("side", [10_001, 12_000, 60_000, 2_000_000])
@pytest.mark.filterwarnings("error")
def test_bombs_are_refused_from_the_header(side: int) -> None:
    with pytest.raises(ImageTooLarge, match="limit is 100,000,000 pixels"):
        decode(header_of_a_bomb(side))


@pytest.mark.filterwarnings("error")
def test_the_limit_is_exact_and_leaves_pillow_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = encoded(Image.fromarray(PICTURE))
    assert decode(data, max_pixels=35).size == (7, 5)
    for source in (data, PICTURE, Image.fromarray(PICTURE)):
        with pytest.raises(ImageTooLarge, match="limit is 34 pixels"):
            load_pixels(source, as_is(7, 5), max_pixels=34)
    with pytest.raises(ImageUnreadable):  # 90.25 million: within the limit, but Pillow would warn
        decode(header_of_a_bomb(9_500))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_truncated_files_are_refused_never_half_loaded(kind: str) -> None:
    noise = GENERATOR.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    whole = load_pixels(data, as_is(64, 64))
    refused = 0
    for cut in range(0, len(data) - 16, max(1, len(data) // 60)):
        try:
            found = load_pixels(data[:cut], as_is(64, 64))
        except ImageUnreadable as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            np.testing.assert_array_equal(found, whole)
    assert refused >= 59


def test_truncation_is_refused_even_if_the_application_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(Image.fromarray(SMOOTH), "JPEG")
    with pytest.raises(ImageUnreadable, match="truncated"):
        decode(data[: len(data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_never_raise_anything_else(kind: str) -> None:
    data = bytearray(encoded(Image.fromarray(SMOOTH), kind))
    size = Preprocessing(width=8, height=8)
    for position in range(0, len(data), max(1, len(data) // 120)):
        flipped = data.copy()
        flipped[position] ^= 0xFF
        try:
            assert load_pixels(bytes(flipped), size).shape == (8, 8, 3)
        except ImageError as error:
            assert "\n" not in str(error)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a picture")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused: list[tuple[Any, str]] = [
        (text, "not an image that Pillow knows"),
        (tmp_path, "not a file"),
        (pipe, "not a file"),
        (tmp_path / "absent.jpg", "No such file"),
        ("a\0b", "cannot be opened"),
        (b"", "0 bytes"),
        (b"\xff\xd8\xff", "bytes of image data"),
    ]
    for source, words in refused:
        with pytest.raises(ImageUnreadable, match=words) as caught:
            decode(source)
        assert "\n" not in str(caught.value)


def test_postscript_is_never_run() -> None:
    """Pillow opens EPS under any name, and starts Ghostscript on its content to load it."""
    data = encoded(Image.fromarray(PICTURE), "EPS")
    assert Image.open(io.BytesIO(data)).format == "EPS"
    with pytest.raises(ImageUnreadable, match="a format that is not read"):
        decode(data)
    with pytest.raises(ImageUnreadable, match="EPS is a program, not a picture"):
        decode(Image.open(io.BytesIO(data)))


def test_a_picture_beyond_the_memory_is_not_called_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(ImageTooLarge, match="memory; scale it down"):
        decode(Image.fromarray(PICTURE))


def test_without_pillow_arrays_of_the_input_size_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    np.testing.assert_array_equal(load_pixels(GREY, as_is(3, 2)), GREY_RGB)
    square = np.full((8, 8, 3), 5, np.uint8)
    assert load_pixels(square, Preprocessing(width=8, height=8)).shape == (8, 8, 3)
    for source in (GREY_RGB, b"\xff\xd8\xff"):
        with pytest.raises(ImageError, match=r'pip install "smidgen-runtime\[image\]"'):
            load_pixels(source, as_is(9, 9))


def test_an_array_of_the_input_size_is_still_cropped_as_a_file_would_be() -> None:
    size = Preprocessing(width=32, height=32, crop_fraction=0.875)
    square = np.ascontiguousarray(SMOOTH[:32, :32])
    found = load_pixels(square, size)
    np.testing.assert_array_equal(found, load_pixels(encoded(Image.fromarray(square)), size))
    assert not np.array_equal(found, square)
    whole = dataclasses.replace(size, crop_fraction=1.0)
    np.testing.assert_array_equal(load_pixels(square, whole), square)
