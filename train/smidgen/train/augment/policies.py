"""The named policies as Keras layers for the training graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from smidgen.train.augment import randaugment
from smidgen.train.augment.blur import AverageBlur, GaussianBlur, MotionBlur, median_blur
from smidgen.train.augment.choice import RandomOperations, Round
from smidgen.train.augment.draws import Operation
from smidgen.train.augment.erasing import Erase
from smidgen.train.augment.geometry import RandomView, Rotate
from smidgen.train.augment.jpeg import JpegCompression
from smidgen.train.augment.margins import margin_of
from smidgen.train.augment.mixing import MixUpOrCutMix
from smidgen.train.augment.noise import (
    CoarseDropout,
    Dropout,
    FrequencyNoiseBlend,
    GaussianNoise,
    LaplaceNoise,
    PoissonNoise,
    Specks,
)
from smidgen.train.augment.tone import (
    AddBrightness,
    ColourJitter,
    GammaContrast,
    HueSaturation,
    LinearContrast,
    LogContrast,
    MultiplyBrightness,
    SigmoidContrast,
)
from smidgen.train.recipe import ScheduleRecipe

PIXEL_ROUNDS: tuple[Mapping[str, Operation], ...] = (
    {
        "rotate 2°": Rotate(2.0),
        "brightness +": AddBrightness(),
        "brightness ×": MultiplyBrightness(),
        "hue, saturation": HueSaturation(),
        "gamma": GammaContrast(),
        "sigmoid": SigmoidContrast(),
        "log": LogContrast(),
        "linear contrast": LinearContrast(),
        "frequency noise": FrequencyNoiseBlend(),
    },
    {
        "Gaussian blur": GaussianBlur(),
        "average blur": AverageBlur(),
        "motion blur": MotionBlur(),
        "median blur": median_blur,
    },
    {
        "Gaussian noise": GaussianNoise(),
        "Laplace noise": LaplaceNoise(),
        "Poisson noise": PoissonNoise(),
        "dropout": Dropout(),
        "coarse dropout": CoarseDropout(),
        "salt": Specks(255.0),
        "pepper": Specks(0.0),
        "JPEG 60-80": JpegCompression(),
    },
)
"""``pixel``, in the order in which a camera does it: light, lens, sensor and file."""

_PIXEL_UNCHANGED = (0.2, 0.5, 0.3)
_RANDAUGMENT_ROUNDS = 2
_RANDAUGMENT_MAGNITUDE = 5.0
_ERASED_SHARE = 0.25
_SHIFT = 0.1


@dataclass(frozen=True)
class Augmentation:
    """What a policy does to the training batches.

    ``layers`` take ``(N, S + margin, S + margin, 3) float32`` RGB pixels 0..255, in turn, and give
    ``(N, S, S, 3)`` in that range; outside training they give the centred crop, unchanged. ``mix``,
    if any, takes ``(pixels, targets)``, one-hot targets ``(N, C) float32``, and gives both mixed.
    Their random states are variables of the model that uses them. ``random_crop`` is the
    schedule's: the least side of crops from anywhere, 1 where there are none.
    """

    name: str
    margin: int
    layers: tuple[Any, ...]
    mix: Any | None = None
    random_crop: float = 1.0

    @property
    def title(self) -> str:
        """The settings that made it, as they stand in a recipe."""
        crop = f", random_crop = {self.random_crop:g}" if self.random_crop < 1 else ""
        return self.name + crop


def policy(schedule: ScheduleRecipe, image_size: int, batch_size: int) -> Augmentation:
    """The layers of ``schedule.augmentation`` and ``horizontal_flip``, seeded by its seed.

    ``batch_size`` is the number of images per step where a batch does not say it while the step is
    compiled; other sizes work wherever the shape is known.
    """
    seeds = [
        int(seed) for seed in np.random.default_rng((schedule.seed, 15)).integers(2**31, size=4)
    ]
    makers = {"none": _none, "pixel": _pixel, "standard": _standard, "strong": _strong}
    layers, mix = makers[schedule.augmentation](schedule, image_size, batch_size, seeds)
    margin = margin_of(schedule, image_size)
    return Augmentation(schedule.augmentation, margin, layers, mix, schedule.random_crop)


_Layers = tuple[tuple[Any, ...], Any | None]


def _none(schedule: ScheduleRecipe, image_size: int, batch_size: int, seeds: list[int]) -> _Layers:
    return _crop_or_flip(schedule, image_size, batch_size, seeds[0]), None


def _pixel(schedule: ScheduleRecipe, image_size: int, batch_size: int, seeds: list[int]) -> _Layers:
    rounds = [Round(*one) for one in zip(PIXEL_ROUNDS, _PIXEL_UNCHANGED, strict=True)]
    layer = RandomOperations(rounds, batch_size, seed=seeds[1], name="pixel_operations")
    return (*_crop_or_flip(schedule, image_size, batch_size, seeds[0]), layer), None


def _standard(
    schedule: ScheduleRecipe, image_size: int, batch_size: int, seeds: list[int]
) -> _Layers:
    view = _view(schedule, image_size, batch_size, seeds[0], coverage=(0.8, 1.1), degrees=10.8)
    colour = Round({"colour": ColourJitter()})
    return (view, RandomOperations([colour], batch_size, seed=seeds[1], name="colour")), None


def _strong(
    schedule: ScheduleRecipe, image_size: int, batch_size: int, seeds: list[int]
) -> _Layers:
    view = _view(schedule, image_size, batch_size, seeds[0], coverage=(0.65, 1.05))
    rounds = [Round(randaugment.operations(_RANDAUGMENT_MAGNITUDE))] * _RANDAUGMENT_ROUNDS
    rounds.append(Round({"erase": Erase()}, unchanged=1.0 - _ERASED_SHARE))
    operations = RandomOperations(rounds, batch_size, seed=seeds[1], name="randaugment")
    return (view, operations), MixUpOrCutMix(batch_size, seed=seeds[2], name="mix")


def _crop_or_flip(
    schedule: ScheduleRecipe, image_size: int, batch_size: int, seed: int
) -> tuple[Any, ...]:
    """What the policies do that have no view of their own."""
    if schedule.random_crop < 1.0:
        return (_view(schedule, image_size, batch_size, seed),)
    if schedule.horizontal_flip:
        return (keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32", name="flip"),)
    return ()


def _view(  # noqa: PLR0913 (a policy's numbers, by name)
    schedule: ScheduleRecipe,
    image_size: int,
    batch_size: int,
    seed: int,
    *,
    coverage: tuple[float, float] = (1.0, 1.0),
    degrees: float = 0.0,
) -> RandomView:
    """Views as a policy has them, or crops from anywhere as ``schedule.random_crop`` asks for."""
    shift: float | None = _SHIFT
    if schedule.random_crop < 1.0:
        coverage, shift = (schedule.random_crop, 1.0), None
    return RandomView(
        image_size,
        batch_size,
        coverage=coverage,
        shift=shift,
        degrees=degrees,
        flip=schedule.horizontal_flip,
        seed=seed,
        name="random_view",
    )
