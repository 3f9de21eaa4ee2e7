"""A stage on features: every view of every image through the frozen layers, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from smidgen.train.augment.policies import policy
from smidgen.train.data import Dataset, Example
from smidgen.train.fitting.features import Features, features
from smidgen.train.fitting.feeds import Step
from smidgen.train.fitting.material import Material
from smidgen.train.fitting.trainee import normalised
from smidgen.train.models.backbones import Normalization
from smidgen.train.pixels.batches import Batches, HeldOut, turned
from smidgen.train.progress import Progress
from smidgen.train.recipe import TrainRecipe

_DRAWS = 1_000_003
"""Added to the schedule's seed: views are drawn apart from what later stages draw."""
_TURNS = 4


class FrozenPart:
    """The frozen layers of a network as a function of pixels."""

    def __init__(self, lower: Any, normalization: Normalization) -> None:
        self._lower = lower
        self._normalization = normalization
        self.shape: tuple[int, ...] = tuple(lower.output_shape[1:])
        lower.compile(jit_compile=keras.config.backend() != "tensorflow")

    def __call__(self, pixels: Any) -> np.ndarray:
        """Features ``(N, ...) float32`` of pixels ``(N, H, W, 3)`` 0..255."""
        x = normalised(keras.ops.cast(pixels, "float32"), self._normalization)
        return np.asarray(self._lower.predict_on_batch(x), np.float32)


class ViewFeed:
    """Training batches of features; epoch after epoch goes through the views in turn."""

    def __init__(self, views: list[Batches], stage_index: int) -> None:
        self._views = views
        self._stage_index = stage_index

    @property
    def steps(self) -> int:
        """See ``Feed``."""
        return self._views[0].steps

    @property
    def images(self) -> int:
        """See ``Feed``."""
        return self._views[0].steps * self._views[0].size

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Step]:
        """See ``Feed``."""
        view = self._views[(epoch - 1) % len(self._views)]
        return view.epoch(self._stage_index, epoch, first_step)


def training_features(
    recipe: TrainRecipe,
    material: Material,
    frozen: FrozenPart,
    path: Path,
    progress: Progress,
) -> tuple[Features, np.ndarray]:
    """Features ``(views * N, ...)`` of the training images, view by view, and their labels."""
    schedule, dataset, source = recipe.schedule, material.dataset, material.training
    examples, rows = dataset.train, source.rows_of(dataset.train)
    batch_size = min(schedule.batch_size, len(examples))
    seeded = replace(schedule, seed=schedule.seed + _DRAWS)
    augmentation = policy(seeded, recipe.data.image_size, batch_size)
    views = min(schedule.feature_views, schedule.head_epochs)
    turns = [_turns(dataset, examples, seeded.seed, view) for view in range(views)]

    def batches() -> Iterator[np.ndarray]:
        for view, turn in enumerate(turns):
            for start in range(0, len(rows), batch_size):
                chosen = np.arange(start, min(start + batch_size, len(rows)))
                x = keras.ops.cast(turned(source.take(rows[chosen]), turn[chosen]), "float32")
                if view == 0:
                    x = _unchanged(x, recipe.data.image_size)
                else:
                    for layer in augmentation.layers:
                        x = layer(x, training=True)
                yield np.asarray(keras.ops.convert_to_numpy(x))

    count = views * len(examples)
    made = features(path, (count, *frozen.shape), batches, frozen, progress)
    is_turning = dataset.task == "orientation"
    fixed = np.array([example.label for example in examples], np.int64)
    labels = np.concatenate([turn if is_turning else fixed for turn in turns])
    return made, labels


def held_out_features(
    images: HeldOut, frozen: FrozenPart, path: Path, batch_size: int, progress: Progress
) -> HeldOut:
    """Features of ``images`` in their order, in batches of ``batch_size``."""
    count = len(images)

    def batches() -> Iterator[np.ndarray]:
        left = count
        for pixels in images:
            yield pixels[:left]
            left -= len(pixels)

    made = features(path, (count, *frozen.shape), batches, frozen, progress)
    return HeldOut(made, np.arange(count), images.labels, batch_size, share=images.share)


def _unchanged(pixels: Any, image_size: int) -> Any:
    """``(N, S + margin, S + margin, 3) float32`` scaled to the input, nothing cut off."""
    if pixels.shape[1] == image_size:
        return pixels
    size = (image_size, image_size)
    return keras.ops.image.resize(pixels, size, "bilinear", antialias=True)


def _turns(dataset: Dataset, examples: tuple[Example, ...], seed: int, view: int) -> np.ndarray:
    """Quarter turns of the images in a view, ``(N,) int64``; the examples' own in the first."""
    if dataset.task != "orientation" or view == 0:
        return np.array([example.turn for example in examples], np.int64)
    return np.random.default_rng((seed, view)).integers(0, _TURNS, len(examples))
