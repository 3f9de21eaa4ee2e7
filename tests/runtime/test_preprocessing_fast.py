"""Fast pixels: within the stated tolerance of the reference, which planted faults exceed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.runtime import (
    ArgumentInvalid,
    ImageTooLarge,
    ImageUnreadable,
    Preprocessing,
    fast_pixels,
)
from smidgen.runtime.fast_pixels import LARGEST_TOLERANCE, LEAST_LEFT, MEAN_TOLERANCE, load
from smidgen.runtime.image_files import FORMATS, MAX_SCANS
from smidgen.runtime.preprocessing import crop_box, decode, load_pixels

Image = pytest.importorskip("PIL.Image")

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "imagenet500"
SIDE = 64


def synthetic_photo(seed: int, width: int, height: int) -> Any:
    """A picture with a photo's spectrum (amplitude as 1/frequency) and some hard edges."""
    chance = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    spectrum = np.exp(2j * np.pi * chance.random((3, height, width)))
    waves = np.fft.ifft2(spectrum / np.maximum(np.hypot(down, across), 1 / width)).real
    levels = 127 + 55 * waves / waves.std(axis=(1, 2), keepdims=True)
    pixels = np.clip(levels, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
    for _ in range(12):
        top, left = chance.integers(0, height), chance.integers(0, width)
        pixels[top : top + height // 9, left : left + width // 7] = chance.integers(0, 256, 3)
    return Image.fromarray(pixels)


def jpeg(image: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **options})
    return stream.getvalue()


def differences(found: Any, expected: Any) -> tuple[float, int]:
    difference = np.abs(found.astype(int) - expected.astype(int))
    return float(difference.mean()), int(difference.max())


def is_within(found: Any, expected: Any) -> bool:
    mean, largest = differences(found, expected)
    return mean <= MEAN_TOLERANCE and largest <= LARGEST_TOLERANCE


CASES: dict[str, dict[str, Any]] = {
    "1/2": {"left": 2 * LEAST_LEFT},
    "1/4": {"left": 4 * LEAST_LEFT},
    "1/8": {"left": 8 * LEAST_LEFT},
    "progressive": {"left": 8 * LEAST_LEFT, "save": {"progressive": True}},
    "4:4:4": {"left": 4 * LEAST_LEFT, "save": {"subsampling": 0}},
    "grey": {"left": 4 * LEAST_LEFT, "mode": "L"},
    "cropped": {"left": 8 * LEAST_LEFT, "way": {"crop_fraction": 0.875}},
    "stretched": {"left": 8 * LEAST_LEFT, "way": {"fit": "stretch"}},
    "bilinear": {"left": 8 * LEAST_LEFT, "way": {"resample": "bilinear"}},
    "more than 1/8": {"left": 20 * LEAST_LEFT, "way": {}},
}


def case(name: str) -> tuple[bytes, Preprocessing]:
    values = CASES[name]
    side = SIDE if values["left"] < 30 else 12
    short = int(side * values["left"]) + 3
    photo = synthetic_photo(len(name), short * 4 // 3 + 1, short).convert(values.get("mode", "RGB"))
    return jpeg(photo, **values.get("save", {})), Preprocessing(side, side, **values.get("way", {}))


@pytest.mark.parametrize("name", CASES)
def test_scaled_jpegs_agree_with_the_reference(name: str) -> None:
    data, way = case(name)
    found, expected = load(data, way), load_pixels(data, way)
    assert found.dtype == np.uint8 and found.shape == expected.shape and found.flags.writeable
    assert is_within(found, expected), differences(found, expected)
    assert not np.array_equal(found, expected)  # it did scale
    np.testing.assert_array_equal(load(data, way, decoder="reference"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_jpegs_agree_whatever_part_of_a_block_is_left_over(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(synthetic_photo(3, 517, 389), exif=exif)
    for way in (Preprocessing(56, 56), Preprocessing(64, 40, fit="stretch")):
        found, expected = load(data, way), load_pixels(data, way)
        assert is_within(found, expected), differences(found, expected)
        upside_down = found[::-1, ::-1]
        assert not is_within(upside_down, expected)


def faults(data: bytes, way: Preprocessing) -> dict[str, Any]:
    """What a wrong fast path would give."""
    whole = decode(data)
    box = crop_box(whole.width, whole.height, way)
    size = (way.width, way.height)

    def drafted(factor: int) -> Any:
        image = Image.open(io.BytesIO(data))
        image.draft(None, (image.width // factor, image.height // factor))
        return image.convert("RGB")

    def resized(image: Any, edges: Any, method: Any) -> Any:
        return np.asarray(image.convert("RGB").resize(size, method, edges))

    cubic, nearest = Image.Resampling.BICUBIC, Image.Resampling.NEAREST
    moved = tuple(edge + shift for edge, shift in zip(box, (-12, 0, -12, 0)))
    strong = drafted(8)
    small = tuple(edge / 8 for edge in box)
    return {
        "nearest neighbour": resized(whole, box, nearest),
        "a box 12 pixels off": resized(whole, moved, cubic),
        "the whole picture": resized(whole, None, cubic),
        "scaled to less than is needed": resized(strong, small, cubic),
        "red and blue exchanged": resized(whole, box, cubic)[:, :, ::-1],
    }


@pytest.mark.parametrize("name", faults(*case("1/4")))
def test_the_tolerance_catches_planted_faults(name: str) -> None:
    data, way = case("1/4")
    planted = faults(data, way)[name]
    assert not is_within(planted, load_pixels(data, way)), differences(
        planted, load_pixels(data, way)
    )


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_200_real_photos_agree_where_least_is_left(factor: int) -> None:
    means, largest = [], 0
    for path in sorted(PHOTOS.glob("*.JPEG"))[::2][:200]:
        data = path.read_bytes()
        side = max(8, int(min(Image.open(path).size) / factor / LEAST_LEFT))
        way = Preprocessing(side, side)
        mean, most = differences(load(data, way), load_pixels(data, way))
        means.append(mean)
        largest = max(largest, most)
    assert len(means) == 200
    assert max(means) <= MEAN_TOLERANCE and largest <= LARGEST_TOLERANCE
    assert 0.5 < np.mean(means) < 1.7  # measured: 1.0 for 1/2, 1.2 for 1/4, 1.5 for 1/8


def test_small_pictures_come_out_as_the_references_bits() -> None:
    photo = synthetic_photo(1, 200, 150)
    way = Preprocessing(SIDE, SIDE)
    for data in (jpeg(photo), photo, np.asarray(photo)):
        np.testing.assert_array_equal(load(data, way), load_pixels(data, way))
    ready = np.asarray(photo)[:SIDE, :SIDE]
    np.testing.assert_array_equal(load(ready, way), ready)


def test_large_arrays_and_other_formats_are_averaged_first() -> None:
    photo = synthetic_photo(2, 640, 480)
    stream = io.BytesIO()
    photo.save(stream, "PNG")
    way = Preprocessing(SIDE, SIDE)
    expected = load_pixels(photo, way)
    found = load(np.asarray(photo), way)
    assert is_within(found, expected) and not np.array_equal(found, expected)
    for source in (photo, stream.getvalue()):
        np.testing.assert_array_equal(load(source, way), found)


def test_cmyk_jpegs_are_not_decoded_scaled() -> None:
    """Adobe's inverted CMYK is turned round by Pillow; the picture must not come out negative."""
    photo = synthetic_photo(4, 640, 480)
    way = Preprocessing(SIDE, SIDE)
    data = jpeg(photo.convert("CMYK"))
    assert b"Adobe" in data
    expected = load_pixels(data, way)
    assert is_within(load(data, way), expected)
    mean, _ = differences(expected, load_pixels(photo, way))
    assert mean < 3
    assert not is_within(255 - load(data, way), expected)


def test_a_phones_file_of_several_pictures_is_decoded_scaled() -> None:
    photo = synthetic_photo(5, 640, 480)
    stream = io.BytesIO()
    photo.save(stream, "MPO", save_all=True, append_images=[photo.resize((64, 48))])
    way = Preprocessing(SIDE, SIDE)
    found, expected = load(stream.getvalue(), way), load_pixels(stream.getvalue(), way)
    assert is_within(found, expected) and not np.array_equal(found, expected)


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpegs_end_as_in_the_reference(progressive: bool) -> None:
    data = jpeg(synthetic_photo(6, 400, 300), progressive=progressive)
    way = Preprocessing(32, 32)
    for cut in range(1, len(data), len(data) // 50):
        with pytest.raises(ImageUnreadable):
            load_pixels(data[:cut], way)
        with pytest.raises(ImageUnreadable):
            load(data[:cut], way)


def test_the_limit_is_that_of_the_whole_picture() -> None:
    data = jpeg(synthetic_photo(7, 640, 480))
    allowed = int(640 * 480 / 0.8) + 1  # JPEG: 0.8 of it, for what a progressive one holds
    assert load(data, Preprocessing(32, 32), max_pixels=allowed).shape == (32, 32, 3)
    for decoder in ("auto", "reference"):
        with pytest.raises(ImageTooLarge, match="640 x 480 pixels"):
            load(data, Preprocessing(32, 32), max_pixels=allowed - 5, decoder=decoder)


def test_thousands_of_empty_scans_are_refused() -> None:
    data = jpeg(synthetic_photo(8, 64, 48), progressive=True)
    last = data.rfind(b"\xff\xda")
    with pytest.raises(ImageUnreadable, match=f"scans, the limit is {MAX_SCANS}"):
        decode(data[:last] + data[last:-2] * 3000 + data[-2:])
    assert decode(data).size == (64, 48)


def test_formats_that_are_not_read() -> None:
    photo = synthetic_photo(9, 64, 48)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        stream = io.BytesIO()
        photo.save(stream, kind)
        assert decode(stream.getvalue()).format == kind and kind in FORMATS
    for kind in ("ICO", "PCX", "TGA", "SGI", "JPEG2000"):
        stream = io.BytesIO()
        photo.save(stream, kind)
        with pytest.raises(ImageUnreadable, match="a format that is not read"):
            decode(stream.getvalue())


def test_another_decoder_is_refused_and_times_are_told() -> None:
    photo = synthetic_photo(10, 64, 48)
    with pytest.raises(ArgumentInvalid, match="decoder = 'magic'"):
        load(photo, Preprocessing(8, 8), decoder="magic")  # type: ignore[arg-type]
    pixels, (decode_ns, preprocess_ns) = fast_pixels.timed(jpeg(photo), Preprocessing(8, 8))
    assert pixels.shape == (8, 8, 3) and decode_ns > 0 and preprocess_ns > 0
