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
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True)
class Picture:
    """An image file, the SHA-256 of its content, and its class index (None: not known)."""

    path: str
    sha256: str
    label: int | None = None

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


def pixel_batches(
    pictures: Sequence[Picture], preprocessing: Preprocessing, size: int
) -> Iterator[NDArray[np.uint8]]:
    """Decode ``pictures`` in order, a few threads ahead of the consumer.

    Yields arrays ``(n, height, width, 3) uint8, 0..255`` with ``n = size``, but for the last.
    """

    def load(picture: Picture) -> NDArray[np.uint8]:
        return load_pixels(picture.read(), preprocessing)

    threads = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pictures), size):
            yield np.stack(list(pool.map(load, pictures[start : start + size])))


def scan_unlabelled(folder: str | os.PathLike[str]) -> tuple[Picture, ...]:
    """All image files under ``folder``, each content once, sorted by content hash.

    Raises:
        SourceError: no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder: give a folder of images")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    found: dict[str, Picture] = {}
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.setdefault(digest, Picture(str(path.resolve()), digest))
    if not found:
        raise SourceError(
            f"no image under {root}: expected files named {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return tuple(found[digest] for digest in sorted(found))


def hash_of_hashes(pictures: Iterable[Picture]) -> str:
    """SHA-256 over the sorted content hashes, one a line; empty for no pictures."""
    lines = sorted(picture.sha256 for picture in pictures)
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest() if lines else ""
