"""Which part of every batch a process reads, and an order that lets it be a fixed one.

The batches of a training must not depend on the number of hosts. So each image has a home, one of
as many as a batch has places, drawn once for the whole training; each epoch shuffles the images of
each home, and step ``s`` takes the ``s``-th image of every home. Hosts own equal runs of homes: a
host reads its images only, epoch after epoch, and any number of hosts that divides the batch makes
the same batches as one. The price: two images of one home never meet in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Order = Callable[[int, int], np.ndarray]
"""``(stage_index, epoch) -> (n,) int64``: positions among the images in the order of an epoch."""

_HOMES = 15_485_863
"""In the seed of the homes, so that it is no epoch's."""


@dataclass(frozen=True)
class Share:
    """Part ``host`` (from 0) of ``hosts`` equal, contiguous parts of every batch.

    ``devices`` of all hosts together cut each batch further, into as many equal parts.
    """

    host: int = 0
    hosts: int = 1
    devices: int = 1

    def of_batch(self, size: int) -> slice:
        """The own places in a batch of ``size``, which must be a multiple of ``devices``."""
        return slice(self.host * size // self.hosts, (self.host + 1) * size // self.hosts)

    def whole(self, size: int) -> int:
        """``size``, rounded up to what the devices can share equally."""
        return -(-size // self.devices) * self.devices


WHOLE = Share()


def home_order(count: int, batch_size: int, seed: int) -> Order:
    """The order described above, of ``count`` images; the rest that fills no batch is left out."""
    homes = _homes(count, batch_size, seed)
    steps = count // len(homes)

    def order(stage_index: int, epoch: int) -> np.ndarray:
        random = np.random.default_rng((seed, stage_index, epoch, len(homes)))
        places = [random.permutation(images)[:steps] for images in homes]
        return np.stack(places, axis=1).reshape(-1)

    return order


def own_positions(count: int, batch_size: int, seed: int, share: Share) -> np.ndarray:
    """Positions of the images that ``share`` ever reads in ``home_order``, sorted, int64."""
    homes = _homes(count, batch_size, seed)
    return np.sort(np.concatenate(homes[share.of_batch(len(homes))]))


def held_out_positions(count: int, batch_size: int, share: Share) -> list[np.ndarray]:
    """What ``share`` reads of each batch of ``count`` images in order, int64.

    All are of one length: past the end, the last image comes again.
    """
    size = share.whole(max(1, min(batch_size, count)))
    starts = range(0, count, size)
    batches = [np.minimum(np.arange(start, start + size), count - 1) for start in starts]
    return [positions[share.of_batch(size)] for positions in batches]


def _homes(count: int, batch_size: int, seed: int) -> list[np.ndarray]:
    """Positions of the images of each home: as many homes as a batch has places."""
    size = min(batch_size, count)
    drawn = np.random.default_rng((seed, _HOMES, size)).permutation(count)
    return [drawn[home::size] for home in range(size)]
