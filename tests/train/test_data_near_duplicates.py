"""Near-duplicates: planted ones are found, others are not, and memory stays flat."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels
from smidgen.train import DataRecipe
from smidgen.train.data import SPLITS, Example, divide
from smidgen.train.data.alignment import explained
from smidgen.train.data.components import components
from smidgen.train.data.near_duplicates import (
    allowed_radius,
    find_near_duplicates,
    near_duplicates,
    near_pairs,
)
from smidgen.train.data.scan import take_inventory
from smidgen.train.pixels.source import ArrayPixels

REPO = Path(__file__).resolve().parents[2]
CLOTHING = REPO.parent / "shared/data/clothing"
SIDE = 128


def scene(seed: int) -> Image.Image:
    """A picture with structure of all sizes, as photos have it: noise whose power falls as 1/f."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(160), np.fft.fftfreq(160)))
    spectrum = np.fft.fft2(random.normal(size=(160, 160, 3)), axes=(0, 1))
    waves = np.fft.ifft2(spectrum / (frequency + 0.01)[:, :, None], axes=(0, 1)).real
    waves = (waves - waves.mean()) / waves.std()
    return Image.fromarray(np.clip(110 + 40 * waves, 0, 255).astype(np.uint8))


def encoded(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=60)
    return Image.open(stream)


def smaller(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.resize((round(0.9 * width), round(0.9 * height)), Image.Resampling.BICUBIC)


def brighter(picture: Image.Image) -> Image.Image:
    return picture.point([min(255, round(1.1 * level)) for level in range(256)] * 3)


def cropped(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (round(0.01 * width), round(0.01 * height), round(0.99 * width), round(0.99 * height))
    )


COPIES = {"jpeg": encoded, "smaller": smaller, "brighter": brighter, "cropped": cropped}


def square(picture: Image.Image) -> np.ndarray:
    return load_pixels(picture, Preprocessing(width=SIDE, height=SIDE))


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_and_nothing_else(kind: str) -> None:
    scenes = [scene(seed) for seed in range(40)]
    copies = [COPIES[kind](picture) for picture in scenes[:20]]
    pixels = np.stack([square(picture) for picture in [*scenes, *copies]])
    clusters = find_near_duplicates(pixels.__getitem__, np.arange(60))
    assert clusters == tuple((n, 40 + n) for n in range(20))
    assert find_near_duplicates(pixels.__getitem__, np.arange(40)) == ()


def test_only_given_rows_are_compared_and_flat_ones_left_out() -> None:
    pixels = np.stack([square(scene(1))] * 3 + [np.full((SIDE, SIDE, 3), 200, np.uint8)] * 3)
    assert find_near_duplicates(pixels.__getitem__, np.array([2, 0])) == ((0, 2),)
    assert find_near_duplicates(pixels.__getitem__, np.arange(6)) == ((0, 1, 2),)
    assert find_near_duplicates(pixels.__getitem__, np.array([3])) == ()
    assert find_near_duplicates(pixels.__getitem__, np.zeros(0, np.int64)) == ()


def test_unreadable_images_are_no_duplicates_of_each_other() -> None:
    pixels = np.stack([square(scene(1)), square(scene(1)), square(scene(1))])
    examples = [Example(f"/x/{n}", 0, f"{n:064x}") for n in range(3)]
    rows = {example.sha256: 2 - n for n, example in enumerate(examples)}
    source = ArrayPixels(pixels, rows, {examples[1].sha256: "truncated"})
    (cluster,) = near_duplicates(examples, source)
    assert set(cluster) == {examples[0].sha256, examples[2].sha256}


def test_a_moved_view_explains_what_another_picture_does_not() -> None:
    wide = scene(3).resize((160, 160)).convert("L")
    views = [wide.crop((n, n, 160 - n, 160 - n)).resize((64, 64)) for n in (0, 3)]
    first, second, other = (
        np.asarray(view, np.float32)[None]
        for view in (*views, scene(4).resize((64, 64)).convert("L"))
    )
    assert explained(first, second)[0] > 0.99
    assert explained(first, 255 - second)[0] < 0  # a negative is no copy
    assert explained(first, other)[0] < 0.5
    unmoved = np.corrcoef(first.ravel(), second.ravel())[0, 1] ** 2
    assert unmoved < 0.98  # so the alignment is what finds it


def test_all_near_pairs_and_no_other() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 1 << 63, 5000, dtype=np.uint64)
    hashes[4998] = hashes[7] ^ np.uint64(0b111)
    hashes[70] = hashes[69]
    found = np.concatenate(list(near_pairs(hashes, 3)))
    assert sorted(map(tuple, found.tolist())) == [(7, 4998), (69, 70)]
    assert list(near_pairs(hashes[:60], 2)) == []


def test_fewer_bits_may_differ_where_images_are_alike_by_nature() -> None:
    random = np.random.default_rng(0)
    far = random.integers(0, 1 << 63, 2000, dtype=np.uint64)
    assert allowed_radius(far) == 10
    flips = [np.bitwise_or.reduce(np.uint64(1) << random.integers(0, 64, 4).astype(np.uint64))
             for _ in range(2000)]  # fmt: skip
    near = far[0] ^ np.array(flips, np.uint64)
    radius = allowed_radius(near)
    assert radius < 8
    pairs = sum(len(pairs) for pairs in near_pairs(near, radius))
    assert pairs <= 10 * 2000 * 1.2
    assert sum(len(pairs) for pairs in near_pairs(near, radius + 1)) > 10 * 2000 * 0.8


def test_components() -> None:
    assert components([(3, 1), (5, 9), (1, 7), (4,)]) == ((1, 3, 7), (4,), (5, 9))
    assert components([("b", "a"), ("c", "b")]) == (("a", "b", "c"),)


@pytest.mark.slow
@pytest.mark.skipif(not CLOTHING.is_dir(), reason="shared/data/clothing is not here")
def test_photos_of_clothes() -> None:
    """Its publishers removed near-duplicates between the splits; planted copies are found."""
    recipe = DataRecipe(str(CLOTHING), image_size=SIDE, limit=60)
    inventory = take_inventory(CLOTHING, recipe)
    examples = [item.example for item in inventory.found]
    pixels = np.stack([load_pixels(e.path, recipe.preprocessing()) for e in examples])
    source = ArrayPixels(pixels, {e.sha256: row for row, e in enumerate(examples)})
    assert near_duplicates(examples, source) == ()
    copies = [square(COPIES[kind](Image.open(e.path).convert("RGB")))
              for e in examples[:100] for kind in COPIES]  # fmt: skip
    both = np.concatenate([pixels, np.stack(copies)])
    clusters = find_near_duplicates(both.__getitem__, np.arange(len(both)))
    originals = [min(cluster) for cluster in clusters]
    assert originals == list(range(100))
    assert sum(map(len, clusters)) >= 500 - 4  # one of a hundred crops may be missed
    dataset = divide(inventory, recipe.shares, together=near_duplicates(examples, source))
    assert sum(len(dataset.split(name)) for name in SPLITS) == len(examples)
