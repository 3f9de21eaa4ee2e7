"""Pixels without a cache: decoded anew whenever a batch is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smidgen.runtime.errors import ImageError
from smidgen.train.data import Example
from smidgen.train.errors import DataError
from smidgen.train.pixels.cache import check_content, reason
from smidgen.train.pixels.decoding import Decoder
from smidgen.train.pixels.lookahead import decoding_threads, in_order
from smidgen.train.pixels.source import distinct, rows_by_content
from smidgen.train.progress import Progress

_IMAGES_PER_TASK = 4


class StreamedPixels:
    """A PixelSource that keeps nothing: each ``take`` decodes, on all cores.

    ``Batches`` and ``HeldOut`` ask ahead of time, so that this happens while the network learns.
    """

    def __init__(self, examples: Sequence[Example], decoder: Decoder, progress: Progress) -> None:
        """Decode all images once, to learn which of them cannot be.

        Raises:
            DataError: an image changed or vanished meanwhile.
        """
        self._examples = distinct(examples)
        self._decoder = decoder
        self._rows = {example.sha256: row for row, example in enumerate(self._examples)}
        self.unreadable: Mapping[str, str] = self._checked(progress)

    @property
    def side(self) -> int:
        """Width and height of the squares in pixels."""
        return self._decoder.side

    def rows_of(self, examples: Sequence[Example]) -> np.ndarray:
        """Row of each example: ``(len(examples),) int64``."""
        return rows_by_content(self._rows, examples)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of ``rows``: ``(len(rows), side, side, 3) uint8`` RGB 0..255.

        Raises:
            DataError: an image that could be decoded before cannot be any more.
        """
        pixels = np.zeros((len(rows), self.side, self.side, 3), np.uint8)

        def decode(start: int) -> None:
            for place in range(start, min(start + _IMAGES_PER_TASK, len(rows))):
                example = self._examples[rows[place]]
                if example.sha256 not in self.unreadable:
                    pixels[place] = self._decoded(example)

        threads = decoding_threads()
        starts = range(0, len(rows), _IMAGES_PER_TASK)
        for _ in in_order(decode, starts, threads=threads, ahead=2 * threads):
            pass
        return pixels

    def _decoded(self, example: Example) -> np.ndarray:
        try:
            return self._decoder.decode(example.path)
        except ImageError as error:
            raise DataError(
                f"{example.path} could be decoded before and cannot be now "
                f"({reason(error, example)}); put it back and run again"
            ) from error

    def _checked(self, progress: Progress) -> dict[str, str]:
        def check(example: Example) -> str | None:
            try:
                self._decoder.decode(example.path)
            except ImageError as error:
                check_content(example)
                return reason(error, example)
            return None

        threads = decoding_threads()
        unreadable = {}
        progress.start("checking", len(self._examples))
        try:
            results = in_order(check, self._examples, threads=threads, ahead=4 * threads)
            for example, why in zip(self._examples, results, strict=True):
                if why is not None:
                    unreadable[example.sha256] = why
                progress.advance(1)
        finally:
            progress.finish()
        return unreadable
