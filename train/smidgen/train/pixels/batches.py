"""Batches of pixels: in an order that seed and epoch decide, and from any step on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from smidgen.train.data import Task
from smidgen.train.errors import DataError
from smidgen.train.pixels.lookahead import in_order
from smidgen.train.pixels.share import WHOLE, Order, Share, held_out_positions

_AHEAD = 2
"""Batches that a thread prepares while the network learns from one."""


class Rows(Protocol):
    """What batches are taken from: a PixelSource, or features in an array."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        """``(len(rows), ...)``, a copy."""


class Batches:
    """The training batches of every epoch.

    An epoch is a permutation of all images (or what ``order`` gives), cut into batches; the rest
    that fills none is left out, another one each time. Fewer images than one batch are one small
    batch. The same seed, stage and epoch give the same batches on every machine, whatever epochs
    and steps came before, and whatever the number of hosts: each gets its part of every batch.

    In the orientation task each image is given a new quarter turn in each epoch, uniform over the
    four, which is its label.
    """

    def __init__(  # noqa: PLR0913 (what decides a batch, by name)
        self,
        source: Rows,
        rows: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        task: Task = "classes",
        order: Order | None = None,
        share: Share = WHOLE,
    ) -> None:
        """
        Args:
            source: gives the pixels.
            rows: of the training images, ``(n,) int64``.
            labels: of the same images, ``(n,) int64``; not looked at in the orientation task.
            batch_size: images per step, of all hosts together.
            seed: of the order and the turns.
            task: "orientation" draws turns.
            order: positions of each epoch; None: a permutation.
            share: the part of each batch that is read here.

        Raises:
            DataError: no images, or batches that the devices cannot share equally.
        """
        self._size = min(batch_size, len(rows))
        if self._size == 0 or self._size % share.devices:
            raise DataError(
                f"{len(rows)} training images in batches of {self._size} for {share.devices} "
                "devices: each needs the same number; choose a schedule.batch_size that can be "
                "divided by it"
            )
        self._source, self._rows, self._labels = source, rows, labels
        self._seed, self._task, self._order = seed, task, order
        self._part = share.of_batch(self._size)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._rows) // self._size

    @property
    def size(self) -> int:
        """Images in a batch of all hosts together."""
        return self._size

    def epoch(
        self, stage_index: int, epoch: int, first_step: int = 0
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """``(step, pixels, labels)`` from ``first_step`` (counted from 0) to the end of the epoch.

        ``pixels``: ``(b, side, side, 3) uint8``, ``labels``: ``(b,) int64``, where ``b`` is this
        host's part of a batch. Steps before ``first_step`` are skipped without being decoded.
        A thread prepares the next batches; it ends with the iterator.
        """
        positions, turns = self._plan(stage_index, epoch)

        def load(step: int) -> tuple[int, np.ndarray, np.ndarray]:
            start = step * self._size
            chosen = positions[start : start + self._size][self._part]
            pixels = self._source.take(self._rows[chosen])
            if turns is None:
                return step, pixels, self._labels[chosen]
            mine = turns[start : start + self._size][self._part]
            return step, turned(pixels, mine), mine

        return in_order(load, range(first_step, self.steps), threads=1, ahead=_AHEAD)

    def _plan(self, stage_index: int, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions of the epoch in order, and the turn of each; ``(n,) int64`` both."""
        random = np.random.default_rng((self._seed, stage_index, epoch))
        if self._order is None:
            positions = random.permutation(len(self._rows))
        else:
            positions = self._order(stage_index, epoch)
        is_turned = self._task == "orientation"
        return positions, random.integers(0, 4, len(positions)) if is_turned else None


class HeldOut:
    """Images to be predicted, each once, in order, in batches of one shape.

    The last batch is filled up with copies of the last image, so that a compiled network sees one
    shape only; whoever predicts cuts the answers at ``len(held_out)``.
    """

    def __init__(  # noqa: PLR0913 (what decides a batch, by name)
        self,
        source: Rows,
        rows: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        turns: np.ndarray | None = None,
        *,
        share: Share = WHOLE,
    ) -> None:
        """
        Args:
            source: gives the pixels.
            rows: of the images, ``(n,) int64``.
            labels: of the same images, ``(n,) int64``.
            batch_size: images per batch; fewer images are one batch of their number.
            turns: quarter turns counter-clockwise to be made, ``(n,) int64``; None: none.
            share: the part of each batch that is read here; batches are rounded up to it.
        """
        self.labels, self.share = labels, share
        self._source, self._rows, self._turns = source, rows, turns
        self._batches = held_out_positions(len(rows), batch_size, share)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pixels ``(b, side, side, 3) uint8``, all batches of one shape."""

        def load(chosen: np.ndarray) -> np.ndarray:
            pixels = self._source.take(self._rows[chosen])
            return pixels if self._turns is None else turned(pixels, self._turns[chosen])

        return in_order(load, self._batches, threads=1, ahead=_AHEAD)


def turned(pixels: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Each square of ``(n, S, S, 3)`` after ``numpy.rot90(square, turn)``; the same array."""
    for turn in (1, 2, 3):
        chosen = turns % 4 == turn
        pixels[chosen] = np.rot90(pixels[chosen], turn, axes=(1, 2))
    return pixels


def balanced_order(labels: np.ndarray, seed: int) -> Order:
    """An epoch of as many images as there are, in which every class comes up equally often.

    Of each class a run of shuffled copies of its images is taken, so that none comes up a second
    time before all did. Class-balanced sampling: Kang et al., Decoupling Representation and
    Classifier for Long-Tailed Recognition, ICLR 2020.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def order(stage_index: int, epoch: int) -> np.ndarray:
        random = np.random.default_rng((seed, stage_index, epoch, len(members)))
        slots = random.permutation(np.arange(len(labels)) % len(members))
        positions = np.empty(len(labels), np.int64)
        for index, images in enumerate(members):
            places = np.flatnonzero(slots == index)
            copies = -(-len(places) // len(images))
            shuffled = [random.permutation(images) for _ in range(copies)]
            positions[places] = np.concatenate(shuffled)[: len(places)] if copies else []
        return positions

    return order
