"""The images of a Run as pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smidgen.train.data import Dataset, Split
from smidgen.train.hosts import ALONE, Group
from smidgen.train.pixels.batches import HeldOut, turned
from smidgen.train.pixels.share import WHOLE, Share
from smidgen.train.pixels.source import PixelSource


@dataclass(frozen=True)
class Material:
    """The images of a Run as pixels: larger ones to learn from, exact ones to answer.

    ``group`` shares every batch; here are the images that this process needs.
    """

    dataset: Dataset
    training: PixelSource
    held_out: PixelSource
    group: Group = ALONE

    @property
    def share(self) -> Share:
        """What this process reads of every batch."""
        return share_of(self.group)

    def answered(self, name: Split, batch_size: int) -> HeldOut:
        """The images of a held-out split in batches, turned as they are to be answered."""
        rows, labels, turns = self._numbers(name)
        return HeldOut(self.held_out, rows, labels, batch_size, turns, share=self.share)

    def take(self, name: Split, positions: np.ndarray) -> np.ndarray:
        """Pixels of images of a held-out split, turned alike: ``(n, S, S, 3) uint8``."""
        rows, _, turns = self._numbers(name)
        return turned(self.held_out.take(rows[positions]), turns[positions])

    def _numbers(self, name: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, label and turn of each image, ``(N,) int64`` all."""
        examples = self.dataset.split(name)
        labels = np.array([example.label for example in examples], np.int64)
        turns = np.array([example.turn for example in examples], np.int64)
        return self.held_out.rows_of(examples), labels, turns


def share_of(group: Group) -> Share:
    """The part of every batch that this process of ``group`` reads. Keras must be imported."""
    import keras

    if keras.config.backend() != "jax":
        return WHOLE
    from smidgen.train.fitting.spread import device_count

    return Share(group.process, group.processes, device_count())
