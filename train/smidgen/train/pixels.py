"""Decoded images on disk: each is read once, by the pre-processing that devices use.

A cache is two files: ``pixels-<key>.npy``, ``(N, H, W, 3) uint8`` RGB 0..255, one row per image of
the inventory in its order, and ``pixels-<key>.json``, which lists the images that cannot be decoded
(their rows are zero). The key covers the content hashes and the pre-processing. Rows are written
one after the other, so a full disk is an error (not a crash, as with a writable memory map), and
take their final name when all are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from smidgen.runtime.errors import ImageError
from smidgen.runtime.files import replacing, write_text
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels
from smidgen.runtime.schema import as_mapping
from smidgen.train.data import Example
from smidgen.train.errors import DiskSpaceError
from smidgen.train.progress import Progress

_FORMAT = 1
_CHUNK_IMAGES = 128


@dataclass(frozen=True)
class Pixels:
    """Decoded images by content hash.

    ``array`` is ``(N, H, W, 3) uint8`` RGB 0..255, memory-mapped, read-only; ``rows`` maps a
    SHA-256 to its row; ``unreadable`` maps the SHA-256 of each undecodable image to the reason.
    """

    array: np.ndarray
    rows: dict[str, int]
    unreadable: dict[str, str]

    def rows_of(self, examples: Sequence[Example]) -> np.ndarray:
        """Row of each example: ``(len(examples),) int64``."""
        return np.array([self.rows[example.sha256] for example in examples], dtype=np.int64)


def decode_all(
    examples: Sequence[Example], preprocessing: Preprocessing, folder: Path, progress: Progress
) -> Pixels:
    """Decode ``examples`` into ``folder``, or open what an earlier call left there.

    Other files in ``folder``, of other images or of a killed process, go first.

    Raises:
        DiskSpaceError: the decoded images would not fit.
        OutputError: the folder cannot be written to, or the disk filled up meanwhile.
    """
    key = _key(examples, preprocessing)
    array_path, list_path = folder / f"pixels-{key}.npy", folder / f"pixels-{key}.json"
    if not (array_path.is_file() and list_path.is_file()):
        shape = (len(examples), preprocessing.height, preprocessing.width, 3)
        shutil.rmtree(folder, ignore_errors=True)
        require_space(folder, int(np.prod(shape)), f"the decoded images ({len(examples)} of them)")
        progress.start("decoding", len(examples))
        try:
            with replacing(array_path) as temporary, open(temporary, "wb") as stream:
                bad = _write(stream, shape, examples, preprocessing, progress)
        finally:
            progress.finish()
        write_text(list_path, json.dumps(bad) + "\n")
    return Pixels(
        array=np.load(array_path, mmap_mode="r"),
        rows={example.sha256: row for row, example in enumerate(examples)},
        unreadable=json.loads(list_path.read_text(encoding="utf-8")),
    )


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise DiskSpaceError unless ``needed_bytes`` are free where ``folder`` is or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise DiskSpaceError(
            f"{what} need {needed_bytes / 1e6:,.0f} MB in {folder}, {free_bytes / 1e6:,.0f} MB are "
            "free: free some space, or choose another folder, a smaller image size or a limit"
        )


def _key(examples: Sequence[Example], preprocessing: Preprocessing) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, as_mapping(preprocessing)]).encode("ascii"))
    for example in examples:
        digest.update(bytes.fromhex(example.sha256))
    return digest.hexdigest()[:16]


def _write(
    stream: IO[bytes],
    shape: tuple[int, ...],
    examples: Sequence[Example],
    preprocessing: Preprocessing,
    progress: Progress,
) -> dict[str, str]:
    """Write header and rows in order; returns the unreadable images with the reasons."""
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    empty = np.zeros(shape[1:], np.uint8)
    bad: dict[str, str] = {}
    for example, result in _decoded(examples, preprocessing):
        if isinstance(result, ImageError):
            bad[example.sha256] = str(result)
        stream.write((empty if isinstance(result, ImageError) else result).tobytes())
        progress.advance(1)
    return bad


def _decoded(
    examples: Sequence[Example], preprocessing: Preprocessing
) -> Iterator[tuple[Example, np.ndarray | ImageError]]:
    """Examples in order with their pixels or what is wrong with them, decoded by threads.

    Threads work on a chunk at a time, so that few images wait in memory.
    """

    def decode(example: Example) -> np.ndarray | ImageError:
        try:
            return load_pixels(example.path, preprocessing)
        except ImageError as error:
            return error

    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for start in range(0, len(examples), _CHUNK_IMAGES):
            chunk = examples[start : start + _CHUNK_IMAGES]
            yield from zip(chunk, pool.map(decode, chunk), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
