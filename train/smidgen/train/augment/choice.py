"""Random operations for every image of a batch, each computed for its own images only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops, random

from smidgen.train.augment.draws import Operation
from smidgen.train.augment.geometry import with_count


@dataclass(frozen=True)
class Round:
    """Operations of which each image gets one; a share of the images gets none."""

    operations: Mapping[str, Operation]
    unchanged: float = 0.0
    least_images: int = field(init=False)

    def __post_init__(self) -> None:
        if not self.operations or not 0 <= self.unchanged < 1:
            raise ValueError(
                f"{len(self.operations)} operations with unchanged = {self.unchanged}: expected at "
                "least one, and 0 to less than 1"
            )
        count = math.ceil(len(self.operations) / (1.0 - self.unchanged))
        object.__setattr__(self, "least_images", count)

    @property
    def is_for_all(self) -> bool:
        """Whether there is nothing to choose: one operation, which every image gets."""
        return len(self.operations) == 1 and not self.unchanged

    def bounds(self, images: int) -> list[int]:
        """Where each operation's images begin and end, in ``images`` ones: as even as it goes."""
        changed = images * (1.0 - self.unchanged)
        count = len(self.operations)
        return [math.floor(changed * i / count + 0.5) for i in range(count + 1)]


class RandomOperations(keras.layers.Layer):  # type: ignore[misc]
    """In each round, one operation per image, chosen at random.

    The batch is shuffled, its slices (of fixed sizes, so that it compiles) go through one operation
    each, and in the end the images are put back in order: an image costs what its operations cost.
    Of a batch of N images, each operation gets N / operations, rounded; batches with fewer images
    than operations are filled up with copies for that time. ``(N, S, S, 3) float32`` 0..255 in and
    out; the identity outside training.
    """

    def __init__(self, rounds: Sequence[Round], batch_size: int, *, seed: int, name: str) -> None:
        """``batch_size``: images per step, where the input does not say it."""
        super().__init__(name=name, dtype="float32")
        # TensorFlow has no XLA kernel for the resampling that some operations use.
        self.supports_jit = keras.config.backend() != "tensorflow"
        self.seeds = keras.random.SeedGenerator(seed)
        self.rounds, self.batch_size = tuple(rounds), batch_size

    def call(self, pixels: Any, training: bool = False) -> Any:
        """The altered images; ``training`` false: the same images."""
        if not training:
            return pixels
        pixels = with_count(pixels, self.batch_size)
        count = pixels.shape[0]
        total = max(count, *(one.least_images for one in self.rounds))
        order = None
        for one in self.rounds:
            if one.is_for_all:
                pixels = self._altered(one, pixels)
                continue
            drawn = random.shuffle(ops.arange(total, dtype="int32"), seed=self.seeds)
            pixels = ops.take(pixels, drawn % count if order is None else drawn, axis=0)
            order = drawn if order is None else ops.take(order, drawn)
            pixels = self._altered(one, pixels)
        return pixels if order is None else ops.take(pixels, ops.argsort(order)[:count], axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As the input."""
        return input_shape

    def _altered(self, one: Round, pixels: Any) -> Any:
        bounds = one.bounds(pixels.shape[0])
        parts = [
            operation(pixels[first:last], self.seeds)
            for operation, (first, last) in zip(
                one.operations.values(), itertools.pairwise(bounds), strict=True
            )
        ]
        return ops.concatenate([*parts, pixels[bounds[-1] :]], axis=0)
