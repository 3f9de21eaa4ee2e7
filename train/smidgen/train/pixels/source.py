"""Where the pixels of images are taken from: a Protocol and its fake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from smidgen.train.data import Example


class PixelSource(Protocol):
    """Squares of pixels by row; each image content has one row."""

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """SHA-256 of each image that cannot be decoded, and the reason. Their rows are black."""

    def rows_of(self, examples: Sequence[Example]) -> np.ndarray:
        """Row of each example: ``(len(examples),) int64``. KeyError for an unknown content."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of ``rows``: ``(len(rows), side, side, 3) uint8`` RGB 0..255, the caller's own."""


class ArrayPixels:
    """Pixels in memory: the fake, and good for small sets."""

    def __init__(
        self,
        array: np.ndarray,
        rows: Mapping[str, int],
        unreadable: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            array: ``(N, side, side, 3) uint8`` RGB 0..255.
            rows: SHA-256 of each image to its row.
            unreadable: SHA-256 of each image that cannot be decoded to the reason.
        """
        self._array = array
        self._rows = dict(rows)
        self.unreadable: Mapping[str, str] = dict(unreadable or {})

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""
        return int(self._array.shape[1])

    def rows_of(self, examples: Sequence[Example]) -> np.ndarray:
        """Row of each example: ``(len(examples),) int64``."""
        return rows_by_content(self._rows, examples)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the pixels of ``rows``."""
        pixels: np.ndarray = self._array[rows]
        return pixels


class PartOfPixels:
    """The pixels of some images among many: the others have the row -1, which nobody may take."""

    def __init__(self, source: PixelSource, examples: Sequence[Example]) -> None:
        """``source`` has the ``examples``, and perhaps no others."""
        self._source = source
        rows = source.rows_of(examples).tolist()
        self._rows = {example.sha256: row for example, row in zip(examples, rows, strict=True)}
        self.unreadable = source.unreadable

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""
        return self._source.side

    def rows_of(self, examples: Sequence[Example]) -> np.ndarray:
        """Row of each example, -1 where it is another process's: ``(len(examples),) int64``."""
        return np.array([self._rows.get(example.sha256, -1) for example in examples], np.int64)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of ``rows``. Raises IndexError for a row that is not here."""
        if (rows < 0).any():
            raise IndexError("an image of another process was asked for")
        return self._source.take(rows)


def rows_by_content(rows: Mapping[str, int], examples: Sequence[Example]) -> np.ndarray:
    """Row of each example: ``(len(examples),) int64``. KeyError for an unknown content."""
    return np.array([rows[example.sha256] for example in examples], dtype=np.int64)


def distinct(examples: Sequence[Example]) -> list[Example]:
    """One example of each content, in the order of the hashes, which is the order of rows."""
    by_content = {example.sha256: example for example in reversed(examples)}
    return [by_content[sha256] for sha256 in sorted(by_content)]
