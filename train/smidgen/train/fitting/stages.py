"""The stages of a training and their learning rates: plain numbers, no Keras."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smidgen.train.recipe import ScheduleRecipe

_FINAL_RATE_SHARE = 0.01


@dataclass(frozen=True)
class Stage:
    """One piece of training with its own set of trained layers.

    ``is_partial``: the layers up to ``ScheduleRecipe.freeze_to`` stay as they are. ``index`` is 0
    for the first stage of the recipe that has epochs; it decides the order of images.
    """

    index: int
    name: str
    epochs: int
    learning_rate: float
    is_partial: bool


def stages(schedule: ScheduleRecipe) -> tuple[Stage, ...]:
    """The stages that have epochs, in order."""
    wanted = (
        ("head", schedule.head_epochs, schedule.head_learning_rate, True),
        ("full", schedule.full_epochs, schedule.full_learning_rate, False),
    )
    present = [entry for entry in wanted if entry[1]]
    return tuple(Stage(index, *entry) for index, entry in enumerate(present))


def learning_rate(stage: Stage, schedule: ScheduleRecipe, update: int, updates: int) -> float:
    """The rate of one update of the weights, counted from 0 in a stage of ``updates``.

    A linear warm-up over ``schedule.warm_up`` of the stage, then a cosine to one hundredth of the
    peak (Loshchilov and Hutter 2017, without restarts), or a constant.
    """
    warm_up = int(schedule.warm_up * updates)
    if update < warm_up:
        return stage.learning_rate * (update + 1) / (warm_up + 1)
    if schedule.decay == "none":
        return stage.learning_rate
    progress = (update - warm_up) / max(1, updates - warm_up)
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return stage.learning_rate * (_FINAL_RATE_SHARE + (1.0 - _FINAL_RATE_SHARE) * share)
