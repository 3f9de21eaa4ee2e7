"""Fast decoding against the reference pre-processing: on made and, where present, real photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smidgen.runtime.errors import ImageError
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels
from smidgen.train.pixels import ReferenceDecoder, TrainingDecoder
from smidgen.train.pixels.jpeg import Reader, fastest_reader, pillow_reader

CLOTHING = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing" / "test"
READERS = [fastest_reader(), pillow_reader()]
MEAN_LEVELS = 4.0
"""Tolerance of a whole set: mean absolute difference in grey levels."""

Write = Callable[..., Path]


def photo(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colour, a grating and sharp edges: what a scaled read could get wrong."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    grating = 25 * np.sin(x / 3 + seed) * np.cos(y / 5)
    edges = 60 * ((x // 23 + y // 31) % 2) - 30
    pixels = smooth + (grating + edges)[..., np.newaxis]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def difference(path: Path, decoder: TrainingDecoder, size: Preprocessing, shift: int = 0) -> float:
    """Mean absolute difference to the reference, which is moved by ``shift`` pixels."""
    reference = np.roll(load_pixels(path, size), shift, axis=1).astype(int)
    pixels = decoder.decode(str(path))
    assert (pixels.shape, pixels.dtype) == (reference.shape, np.uint8)
    return float(np.abs(pixels - reference).mean())


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """``write(image, **options)``: the image as a JPEG file."""
    count = 0

    def save(image: Image.Image, **options: object) -> Path:
        nonlocal count
        count += 1
        path = tmp_path / f"{count}.jpg"
        image.save(path, **{"format": "JPEG", "quality": 90, **options})  # type: ignore[arg-type]
        return path

    yield save


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.split()[0])
@pytest.mark.parametrize("size", [(341, 256), (256, 455), (300, 300), (1000, 700), (90, 70)])
def test_made_photos_agree(reader: Reader, size: tuple[int, int], write: Write) -> None:
    path = write(photo(1, *size))
    for side, margin in ((96, 32), (112, 32), (128, 16), (224, 32), (64, 0)):
        whole = Preprocessing(side + margin, side + margin)
        decoder = TrainingDecoder(Preprocessing(side, side), margin, reader)
        assert decoder.side == side + margin
        assert difference(path, decoder, whole) < 2 * MEAN_LEVELS  # one picture full of edges
    stretched = Preprocessing(80, 80, fit="stretch", resample="bilinear")
    assert difference(path, TrainingDecoder(stretched, 0, reader), stretched) < 2 * MEAN_LEVELS
    part = Preprocessing(60, 60, crop_fraction=0.5)
    assert difference(path, TrainingDecoder(part, 0, reader), part) < 2 * MEAN_LEVELS


@pytest.mark.parametrize("side", [100, 128, 144, 160, 200])
def test_real_photos_agree_and_a_shifted_crop_is_seen(side: int) -> None:
    paths = sorted(CLOTHING.rglob("*.jpg"))[::6]
    if not paths:
        pytest.skip("the photos of shared/data/clothing are not there")
    size = Preprocessing(side, side)
    decoder = TrainingDecoder(size)
    levels = np.mean([difference(path, decoder, size) for path in paths])
    shifted = np.mean([difference(path, decoder, size, shift=2) for path in paths])
    assert levels < MEAN_LEVELS < shifted
    if side == 200:  # read at its whole size
        assert levels == 0.0


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.split()[0])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_s_turn_is_undone(orientation: int, reader: Reader, write: Write) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(photo(2, 341, 256), exif=exif)
    for side in (128, 144):  # cut out, and resized
        size = Preprocessing(side, side)
        decoder = TrainingDecoder(size, 0, reader)
        assert difference(path, decoder, size) < 2 * MEAN_LEVELS
        if orientation > 1:
            upright = load_pixels(write(photo(2, 341, 256)), size).astype(int)
            assert np.abs(decoder.decode(str(path)) - upright).mean() > 4 * MEAN_LEVELS
        ignoring = Preprocessing(side, side, exif_orientation=False)
        assert difference(path, TrainingDecoder(ignoring, 0, reader), ignoring) < 2 * MEAN_LEVELS


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.split()[0])
def test_other_kinds_of_jpeg(reader: Reader, write: Write) -> None:
    picture = photo(3, 341, 256)
    fast = [
        write(picture, progressive=True),
        write(picture, subsampling=0),
        write(picture, keep_rgb=True),
        write(picture.convert("L")),
        write(picture, format="MPO", save_all=True, append_images=[photo(4, 341, 256)]),
    ]
    for side in (128, 144):
        size = Preprocessing(side, side)
        for path in fast:
            assert difference(path, TrainingDecoder(size, 0, reader), size) < 2 * MEAN_LEVELS
        same = [write(picture.convert("CMYK")), write(picture, format="PNG")]
        for path in same:
            assert difference(path, TrainingDecoder(size, 0, reader), size) == 0.0


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.split()[0])
def test_what_the_reference_refuses_is_refused_in_its_words(
    reader: Reader, write: Write, tmp_path: Path
) -> None:
    whole = write(photo(5, 341, 256)).read_bytes()
    random = np.random.default_rng(0)
    size = Preprocessing(128, 128)
    refused = 0
    for number in range(120):
        data = bytearray(whole)
        if number % 2:
            data = data[: 1 + len(data) * number // 120]
        else:
            for place in random.integers(2, len(data), 1 + number // 20):
                data[place] = random.integers(256)
        path = tmp_path / "damaged.jpg"
        path.write_bytes(data)
        expected = outcome(ReferenceDecoder(size), path)
        assert outcome(TrainingDecoder(size, 0, reader), path) == expected
        refused += expected is not None
    assert 55 < refused < 120
    missing = tmp_path / "missing.jpg"
    assert outcome(TrainingDecoder(size), missing) == outcome(ReferenceDecoder(size), missing)
    assert "cannot be opened" in str(outcome(TrainingDecoder(size), missing))


def test_the_library_alone_would_accept_a_truncated_photo(write: Write) -> None:
    """The fault that ``strict`` and the reference's last word are there for."""
    simplejpeg = pytest.importorskip("simplejpeg")
    data = write(photo(6, 341, 256)).read_bytes()
    cut = data[: len(data) // 2]
    assert simplejpeg.decode_jpeg(cut, strict=False).shape == (256, 341, 3)
    with pytest.raises(ImageError, match="truncated"):
        ReferenceDecoder(Preprocessing(128, 128)).decode(str(write_bytes(cut, write)))


def write_bytes(data: bytes, write: Write) -> Path:
    """The bytes in a file."""
    path = write(Image.new("RGB", (8, 8)))
    path.write_bytes(data)
    return path


def outcome(decoder: TrainingDecoder | ReferenceDecoder, path: Path) -> str | None:
    """The error's text, None where the file is accepted."""
    try:
        decoder.decode(str(path))
    except ImageError as error:
        return str(error)
    return None


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    refusal = outcome(TrainingDecoder(Preprocessing(64, 64)), tmp_path / "pipe.jpg")
    assert refusal is not None and refusal.endswith("pipe.jpg: not a file; expected an image file")


def test_settings_name_all_that_decides_the_pixels() -> None:
    size = Preprocessing(128, 128)
    decoders = [
        ReferenceDecoder(size),
        TrainingDecoder(size, 0, READERS[0]),
        TrainingDecoder(size, 16, READERS[0]),
        TrainingDecoder(size, 0, READERS[1]),
        TrainingDecoder(Preprocessing(128, 128, resample="bilinear"), 0, READERS[1]),
    ]
    texts = {repr(decoder.settings) for decoder in decoders}
    assert len(texts) == len(decoders)
    assert repr(TrainingDecoder(size, 16, READERS[0]).settings) in texts
    with pytest.raises(ValueError, match="128 x 96 is no square"):
        ReferenceDecoder(Preprocessing(128, 96))
