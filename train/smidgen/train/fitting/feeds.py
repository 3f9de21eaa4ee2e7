"""Where the batches of a stage come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from smidgen.train.pixels.batches import Batches

Step = tuple[int, np.ndarray, np.ndarray]
"""Step of the epoch, counted from 0; pixels or features ``(N, ...)``; labels ``(N,) int64``."""


class Feed(Protocol):
    """The training images of a stage, in batches."""

    @property
    def steps(self) -> int:
        """Steps of an epoch."""

    @property
    def images(self) -> int:
        """Images of an epoch, those that fill no batch left out."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Step]:
        """The batches of an epoch (counted from 1) in its order, from ``first_step`` on."""


class ImageFeed:
    """Batches of decoded images, in a stage."""

    def __init__(self, batches: Batches, stage_index: int) -> None:
        self._batches = batches
        self._stage_index = stage_index

    @property
    def steps(self) -> int:
        """See ``Feed``."""
        return self._batches.steps

    @property
    def images(self) -> int:
        """See ``Feed``."""
        return self._batches.steps * self._batches.size

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Step]:
        """See ``Feed``."""
        return self._batches.epoch(self._stage_index, epoch, first_step)
