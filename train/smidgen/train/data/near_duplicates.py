"""Images that look the same though their files differ: saved anew, scaled, brighter, cropped a bit.

Two steps, from decoded pixels. First a 64-bit perceptual hash of each image (``imagehash.phash``:
signs of the low frequencies of a cosine transform) and all pairs with few different bits. Such
pairs are many where images are alike by nature (pages of text, digits), so each is then checked on
grey thumbnails: one, laid over the other, must explain nearly all of its variance (``alignment``).
Colour is not compared.

Measured at 160 px, 400 planted copies of each kind in each of four sets (clothes, cats and dogs,
ImageNet, document pages). Found: JPEG quality 60 and 0.9 times the size, all; 10 % brighter, all
photos and 83 % of the pages; 1 % cut off each edge, 99.8 to 100 % of the photos and 98 % of the
pages; 2 % off each edge, 98 to 100 % and 92 %. The 11 clusters among the 7,180 images themselves
are all true ones (pages: translations of one page). Handwritten digits are alike by nature: 53 of
5,000 are in clusters; there ``data.near_duplicates = "ignore"`` is the better choice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smidgen.train.data.alignment import SOURCE_SIDE, Images, explained
from smidgen.train.data.components import Forest
from smidgen.train.data.dataset import Example

if TYPE_CHECKING:
    from smidgen.train.pixels.source import PixelSource

RADIUS = 10
"""Most different bits, of 64, of the hashes of a pair that is looked at."""
EXPLAINED = 0.98
"""Smallest share of the variance of one thumbnail that the other explains in near-duplicates."""

Take = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Rows ``(n,) int64`` to pixels ``(n, S, S, 3) uint8`` RGB 0..255: ``PixelSource.take``."""

_PAIRS_PER_IMAGE = 10
_SAMPLE = 256
_BLOCK, _STRETCH = 64, 4096  # a tile of hashes that fits the processor's cache
_CHUNK = 512
_TAKEN = 128
_FLAT_LEVELS = 2.0
_BITS = 64


def near_duplicates(
    examples: Sequence[Example], pixels: PixelSource
) -> tuple[tuple[str, ...], ...]:
    """Clusters of SHA-256 for ``divide(..., together=...)``; unreadable images are left out."""
    readable = [example for example in examples if example.sha256 not in pixels.unreadable]
    rows = pixels.rows_of(readable)
    sha256_of = {int(row): example.sha256 for row, example in zip(rows, readable, strict=True)}
    return tuple(
        tuple(sha256_of[row] for row in cluster)
        for cluster in find_near_duplicates(pixels.take, rows)
    )


def find_near_duplicates(take: Take, rows: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Clusters, of two and more, of ``rows`` whose images look the same.

    What looks like a member of a cluster belongs to it. Images without any detail are left out.
    Where hashes are near to each other by nature, fewer bits may differ, so that about ten pairs
    for each image are checked at most. Takes time with the square of the images (100,000: half a
    minute) for the hashes, and 0.2 ms for each pair that is checked; memory for 8 bytes an image.

    Args:
        take: gives pixels by row; those of near hashes are taken again.
        rows: ``(n,) int64``, what to compare.
    """
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    forest: Forest[int] = Forest()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes, is_flat = _hashes(take, rows, pool)
        rows, hashes = rows[~is_flat], hashes[~is_flat]
        for pairs in near_pairs(hashes, allowed_radius(hashes)):
            for start in range(0, len(pairs), _CHUNK):
                chunk = rows[pairs[start : start + _CHUNK]]
                is_new = [forest.root(int(one)) != forest.root(int(other)) for one, other in chunk]
                chunk = chunk[np.array(is_new)]
                for one, other in chunk[_look_the_same(take, chunk, pool)]:
                    forest.join(int(one), int(other))
    return forest.sets()


def allowed_radius(hashes: NDArray[np.uint64]) -> int:
    """The largest radius up to ``RADIUS`` that gives ten pairs an image or fewer, by a sample."""
    if len(hashes) < 2:
        return RADIUS
    sample = hashes[:: max(1, len(hashes) // _SAMPLE)]
    counts = np.zeros(_BITS + 1, dtype=np.int64)
    for one in sample:
        counts += np.bincount(np.bitwise_count(hashes ^ one), minlength=_BITS + 1)
    counts[0] -= len(sample)  # each with itself
    pairs_per_image = np.cumsum(counts)[: RADIUS + 1] / len(sample) / 2
    fitting = np.flatnonzero(pairs_per_image <= _PAIRS_PER_IMAGE)
    return int(fitting[-1]) if len(fitting) else 0


def near_pairs(hashes: NDArray[np.uint64], radius: int) -> Iterator[NDArray[np.int64]]:
    """All pairs ``(n, 2) int64``, first < second, whose hashes differ in ``radius`` bits or fewer.

    One array for each tile of the N x N table of differences that has some, so that memory stays
    flat.
    """
    for top in range(0, len(hashes), _BLOCK):
        block = hashes[top : top + _BLOCK, None]
        for left in range(top, len(hashes), _STRETCH):
            bits = np.bitwise_count(block ^ hashes[None, left : left + _STRETCH])
            first, second = np.nonzero(bits <= radius)
            pairs = np.stack([first + top, second + left], axis=1)
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            if len(pairs):
                yield pairs


def _hashes(
    take: Take, rows: NDArray[np.int64], pool: ThreadPoolExecutor
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """For each row its hash, and whether there is no detail in it that could be compared."""
    import imagehash
    from PIL import Image

    def look(pixels: NDArray[np.uint8]) -> tuple[bytes, bool]:
        grey = Image.fromarray(pixels).convert("L")
        bits = imagehash.phash(grey).hash
        return np.packbits(bits).tobytes(), bool(np.asarray(grey).std() < _FLAT_LEVELS)

    seen: list[tuple[bytes, bool]] = []
    for start in range(0, len(rows), _TAKEN):
        seen += pool.map(look, take(rows[start : start + _TAKEN]))
    joined = b"".join(code for code, _ in seen)
    return np.frombuffer(joined, np.uint64), np.array([flat for _, flat in seen], dtype=bool)


def _look_the_same(
    take: Take, pairs: NDArray[np.int64], pool: ThreadPoolExecutor
) -> NDArray[np.bool_]:
    """``(len(pairs),) bool`` for pairs of rows ``(n, 2)``."""
    same = np.zeros(len(pairs), dtype=bool)
    if len(pairs):
        rows, places = np.unique(pairs, return_inverse=True)
        thumbnails = _thumbnails(take, rows, pool)
        first, second = places.reshape(-1, 2).T
        same = explained(thumbnails[first], thumbnails[second]) >= EXPLAINED
        left = np.flatnonzero(~same)  # the smaller view may be the first one
        same[left] = explained(thumbnails[second[left]], thumbnails[first[left]]) >= EXPLAINED
    return same


def _thumbnails(take: Take, rows: NDArray[np.int64], pool: ThreadPoolExecutor) -> Images:
    """Grey, ``(len(rows), 64, 64) float32``, 0..255."""
    from PIL import Image

    def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        grey = Image.fromarray(pixels).convert("L")
        return np.asarray(grey.resize((SOURCE_SIDE, SOURCE_SIDE), Image.Resampling.BILINEAR))

    shrunk: list[NDArray[np.uint8]] = []
    for start in range(0, len(rows), _TAKEN):
        shrunk += pool.map(shrink, take(rows[start : start + _TAKEN]))
    return np.stack(shrunk).astype(np.float32)
