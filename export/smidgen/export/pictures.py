"""The images that export works with: files whose content is known by hash, decoded in one way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import SourceError
from smidgen.runtime.errors import ImageError
from smidgen.runtime.files import sha256_of_file
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels
from smidgen.train.data import Example
from smidgen.train.data.scan import IMAGE_SUFFIXES, is_image


@dataclass(frozen=True)
class Picture:
    """An image file, the SHA-256 of its content, and its class index (None: not known).

    ``turn``: quarter turns counter-clockwise (``numpy.rot90``) that its pixels are given.
    """

    path: str
    sha256: str
    label: int | None = None
    turn: int = 0

    def read(self) -> bytes:
        """The file's content, which must still be the one that was hashed.

        Raises:
            SourceError: the file is gone, cannot be read, or holds something else now.
        """
        try:
            data = Path(self.path).read_bytes()
        except OSError as error:
            raise SourceError(
                f"cannot read {self.path} ({error.strerror or error}): put the image back, or "
                "train again without it"
            ) from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise SourceError(
                f"{self.path} is not the image it was when the split was made, so held-out and "
                "training images may be mixed up: put it back, or train again"
            )
        return data

    def pixels(self, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """The input tensor, ``(height, width, 3) uint8, 0..255``, C order, turned last.

        Raises:
            SourceError: as ``read``, or the file is no whole image.
        """
        try:
            pixels = load_pixels(self.read(), preprocessing)
        except ImageError as error:
            raise SourceError(f"{self.path} cannot be used ({error})") from error
        return np.ascontiguousarray(np.rot90(pixels, self.turn))


def picture_of(example: Example) -> Picture:
    """An image of a data set as a picture."""
    return Picture(example.path, example.sha256, example.label, example.turn)


def pixel_batches(
    pictures: Sequence[Picture], preprocessing: Preprocessing, size: int
) -> Iterator[NDArray[np.uint8]]:
    """Decode ``pictures`` in order, a batch at a time, in a few threads.

    Yields arrays ``(n, height, width, 3) uint8, 0..255`` with ``n = size``, but for the last.
    """
    threads = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pictures), size):
            batch = pictures[start : start + size]
            yield np.stack(list(pool.map(lambda picture: picture.pixels(preprocessing), batch)))


def scan_unlabelled(folder: str | os.PathLike[str]) -> tuple[Picture, ...]:
    """All image files under ``folder``, each content once, sorted by content hash.

    Raises:
        SourceError: no such folder, no image in it, or one that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give a folder of images")
    found: dict[str, Picture] = {}
    for path in sorted(filter(is_image, root.rglob("*"))):
        try:
            digest = sha256_of_file(path)
        except OSError as error:
            raise SourceError(
                f"cannot read {path} ({error.strerror or error}): take it out of the folder"
            ) from error
        found.setdefault(digest, Picture(str(path.resolve()), digest))
    if not found:
        raise SourceError(
            f"no image under {root}: expected files named {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return tuple(found[digest] for digest in sorted(found))


def hash_of_hashes(pictures: Iterable[Picture]) -> str:
    """SHA-256 over the sorted content hashes, one a line; empty for no pictures.

    The turn follows the hash of a picture that has one, so turns of one image are told apart.
    """
    lines = sorted(
        f"{picture.sha256} {picture.turn}" if picture.turn else picture.sha256
        for picture in pictures
    )
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest() if lines else ""
