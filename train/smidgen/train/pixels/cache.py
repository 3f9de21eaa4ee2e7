"""Decoded images on disk: each content is read once, whatever Runs use it.

A set of decoded images is a folder with two files: ``pixels.npy``, ``(N, side, side, 3) uint8`` RGB
0..255, a row for each content in the order of the hashes, and ``unreadable.json``, the contents
that cannot be decoded (their rows are zero). Its name, the key, covers the hashes and everything
that decides the pixels (``Decoder.settings``), so that a set never changes once it is there.

Rows are written one after the other into ``partial.npy``; ``partial.json`` says how many of them
are safely on the disk, so that an interrupted process, whatever ended it, is continued by the next
one that wants the same set. One process at a time writes a set, the others wait for it.

Batches are read with ``preadv``, not from a memory map: the pages of a map count as the process's
memory until the whole set does, and a disk error in a map ends the process by a signal. At 128 px
that gives 158,000 images/s instead of 216,000, on one core.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from smidgen.runtime.errors import ImageError, OutputError
from smidgen.runtime.files import output_error, sha256_of_file, write_text
from smidgen.train.data import Example
from smidgen.train.errors import DataError
from smidgen.train.lock import sole_writer
from smidgen.train.pixels.cache_folder import (
    PARTIAL_FILE,
    PARTIAL_STATE_FILE,
    PIXELS_FILE,
    UNREADABLE_FILE,
    CacheFolder,
    make_room,
)
from smidgen.train.pixels.decoding import Decoder
from smidgen.train.pixels.lookahead import decoding_threads, in_order
from smidgen.train.pixels.source import distinct, rows_by_content
from smidgen.train.progress import Progress

_FORMAT = 2
_BLOCK_BYTES = 1 << 20
_SAFE_EVERY_BYTES = 64 << 20
"""So much is decoded again, at most, after a process was killed."""


class CachedPixels:
    """A set of decoded images on disk: a PixelSource.

    While it lives it holds a lock that keeps the set from being deleted to make room.
    """

    def __init__(self, folder: Path, hashes: Sequence[str]) -> None:
        """
        Args:
            folder: of the set.
            hashes: SHA-256 of each row's image, in order.

        Raises:
            FileNotFoundError: the set is not there, or not complete.
            DataError: its file is damaged.
        """
        self._path = folder / PIXELS_FILE
        self._stream = open(self._path, "rb", buffering=0)  # noqa: SIM115 (closed with the object)
        _lock_shared(self._stream)
        self.unreadable: Mapping[str, str] = json.loads(
            (folder / UNREADABLE_FILE).read_text(encoding="utf-8")
        )
        self._rows = {sha256: row for row, sha256 in enumerate(hashes)}
        self._shape, self._first_byte = self._header(len(hashes))

    def _header(self, count: int) -> tuple[tuple[int, ...], int]:
        try:
            np.lib.format.read_magic(self._stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(self._stream)
        except ValueError as error:
            raise self._damaged() from error
        first_byte = self._stream.tell()
        expected_bytes = first_byte + int(np.prod(shape))
        size_bytes = os.fstat(self._stream.fileno()).st_size
        if shape[0] != count or dtype != np.uint8 or size_bytes != expected_bytes:
            raise self._damaged()
        return shape, first_byte

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""
        return self._shape[1]

    def rows_of(self, examples: Sequence[Example]) -> np.ndarray:
        """Row of each example: ``(len(examples),) int64``."""
        return rows_by_content(self._rows, examples)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of ``rows``: ``(len(rows), side, side, 3) uint8`` RGB 0..255.

        Raises:
            DataError: the file is shorter than it was.
            OSError: the disk cannot be read.
        """
        pixels = np.empty((len(rows), *self._shape[1:]), np.uint8)
        handle, row_bytes = self._stream.fileno(), int(np.prod(self._shape[1:]))
        for place, row in zip(pixels, rows.tolist(), strict=True):
            if not 0 <= row < self._shape[0]:
                raise IndexError(f"row {row} of {self._shape[0]}")
            if os.preadv(handle, [place], self._first_byte + row * row_bytes) != row_bytes:
                raise self._damaged()
        return pixels

    def _damaged(self) -> DataError:
        return DataError(
            f"{self._path} is damaged; delete its folder, and the images are decoded again"
        )


def decode_all(
    examples: Sequence[Example], decoder: Decoder, cache: CacheFolder, progress: Progress
) -> CachedPixels:
    """Decode ``examples`` into ``cache``, or open what an earlier or another Run left there.

    Args:
        examples: in any order; equal contents count once.
        decoder: makes the pixels.
        cache: where the set is kept.
        progress: is told how many images are done.

    Raises:
        DiskSpaceError: the decoded images would not fit.
        DataError: an image changed or vanished meanwhile.
        OutputError: the folder cannot be written to, or the disk filled up meanwhile.
        KeyboardInterrupt: passed on; the next call goes on from there.
    """
    ordered = distinct(examples)
    hashes = [example.sha256 for example in ordered]
    folder = cache.path / _key(hashes, decoder)
    while True:  # a set may be deleted to make room between its completion and its opening
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return _opened(folder, hashes)
        with sole_writer(folder, progress.note):
            if not all((folder / name).exists() for name in (PIXELS_FILE, UNREADABLE_FILE)):
                _Writing(folder, ordered, decoder).run(cache, progress)


def _opened(folder: Path, hashes: Sequence[str]) -> CachedPixels:
    pixels = CachedPixels(folder, hashes)
    now_ns = time.time_ns()  # finer than what the file system would take
    with contextlib.suppress(OSError):  # a cache that only others may write
        os.utime(folder / PIXELS_FILE, ns=(now_ns, now_ns))
    return pixels


def _lock_shared(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # being deleted, or no locks there: it stays readable
        fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)


def _key(hashes: Sequence[str], decoder: Decoder) -> str:
    settings = json.dumps([_FORMAT, decoder.settings], sort_keys=True)
    digest = hashlib.sha256(settings.encode("utf-8"))
    for sha256 in hashes:
        digest.update(bytes.fromhex(sha256))
    return digest.hexdigest()[:24]


class _Block(NamedTuple):
    """Decoded rows in order, and the contents among them that cannot be decoded."""

    pixels: np.ndarray
    unreadable: dict[str, str]


class _Writing:
    """Writes one set; the caller holds the lock on ``folder``."""

    def __init__(self, folder: Path, examples: Sequence[Example], decoder: Decoder) -> None:
        self._folder = folder
        self._examples = examples
        self._decoder = decoder
        self._row_bytes = 3 * decoder.side**2
        self._unreadable: dict[str, str] = {}
        self._done = 0
        """Rows in the partial file."""

    def run(self, cache: CacheFolder, progress: Progress) -> None:
        """What is left of the set, then its final name."""
        count = len(self._examples)
        what = f"the decoded images ({count} of them)"
        path = self._folder / PARTIAL_FILE
        try:
            make_room(cache, count * self._row_bytes, self._folder.name, what)
            with open(path, "r+b" if path.exists() else "w+b") as stream:
                self._go_back(stream)
                progress.start("decoding", count - self._done)
                try:
                    self._write(stream, progress)
                finally:
                    progress.finish()
                    self._keep(stream)
            write_text(self._folder / UNREADABLE_FILE, json.dumps(self._unreadable) + "\n")
            path.rename(self._folder / PIXELS_FILE)
        except OSError as error:
            self._forget()
            raise output_error(path, error) from error
        except OutputError:
            self._forget()
            raise
        (self._folder / PARTIAL_STATE_FILE).unlink(missing_ok=True)

    def _go_back(self, stream: IO[bytes]) -> None:
        """To the end of the rows that are safe; to the header where there are none."""
        state = self._state()
        shape = (len(self._examples), self._decoder.side, self._decoder.side, 3)
        stream.seek(0)
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        first_byte = stream.tell()
        safe_bytes = first_byte + state.get("rows", 0) * self._row_bytes
        if stream.seek(0, os.SEEK_END) >= safe_bytes:
            self._done, self._unreadable = state.get("rows", 0), state.get("unreadable", {})
        stream.truncate(first_byte + self._done * self._row_bytes)
        stream.seek(0, os.SEEK_END)

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(
                (self._folder / PARTIAL_STATE_FILE).read_text(encoding="utf-8")
            )
        except (FileNotFoundError, ValueError):
            return {}
        return state

    def _write(self, stream: IO[bytes], progress: Progress) -> None:
        threads = decoding_threads()
        step = max(1, _BLOCK_BYTES // self._row_bytes)
        left = self._examples[self._done :]
        blocks = [left[start : start + step] for start in range(0, len(left), step)]
        unsafe_bytes = 0
        for block in in_order(self._decoded, blocks, threads=threads, ahead=2 * threads):
            stream.write(block.pixels.data)
            self._done += len(block.pixels)
            self._unreadable |= block.unreadable
            unsafe_bytes += block.pixels.nbytes
            if unsafe_bytes >= _SAFE_EVERY_BYTES:
                self._keep(stream)
                unsafe_bytes = 0
            progress.advance(len(block.pixels))

    def _decoded(self, examples: Sequence[Example]) -> _Block:
        side = self._decoder.side
        block = _Block(np.zeros((len(examples), side, side, 3), np.uint8), {})
        for place, example in zip(block.pixels, examples, strict=True):
            try:
                place[...] = self._decoder.decode(example.path)
            except ImageError as error:
                check_content(example)
                block.unreadable[example.sha256] = reason(error, example)
        return block

    def _keep(self, stream: IO[bytes]) -> None:
        """Bring the rows to the disk first, then the word that they are there."""
        stream.flush()
        os.fsync(stream.fileno())
        state = {"rows": self._done, "unreadable": self._unreadable}
        write_text(self._folder / PARTIAL_STATE_FILE, json.dumps(state) + "\n")

    def _forget(self) -> None:
        for name in (PARTIAL_FILE, PARTIAL_STATE_FILE):
            (self._folder / name).unlink(missing_ok=True)


def check_content(example: Example) -> None:
    """Raise DataError unless the file still has the content that was hashed.

    Asked before a content is called undecodable for all Runs: a file that vanished is none.
    """
    try:
        is_same = sha256_of_file(example.path) == example.sha256
    except OSError as error:
        raise DataError(
            f"{example.path} cannot be read any more ({error.strerror or error}); run again"
        ) from error
    if not is_same:
        raise DataError(f"{example.path} changed while the images were read; run again")


def reason(error: ImageError, example: Example) -> str:
    """Why ``example`` cannot be decoded, without its path: other Runs have other copies."""
    return str(error).removeprefix(f"{example.path}: ")
