"""The ``Tuner`` of a Run: the train room's own loop, on the Run's own images and recipe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import SourceError
from smidgen.export.progress import Progress
from smidgen.export.workshop import TuningWish
from smidgen.train.data import Dataset
from smidgen.train.errors import DataError
from smidgen.train.models.backbones import Normalization
from smidgen.train.recipe import TrainRecipe

if TYPE_CHECKING:  # imports Keras
    from smidgen.train.fitting.tuning import Tuning, TuningSubject


@dataclass(frozen=True)
class RunTuner:
    """See ``Tuner``. ``folder`` keeps checkpoints of what was interrupted, by name."""

    recipe: TrainRecipe
    dataset: Dataset
    normalization: Normalization
    folder: Path
    progress: Progress

    def tune(self, subject: TuningSubject, wish: TuningWish) -> float:
        """See ``Tuner``."""
        if wish.plan.epochs == 0:
            return self.validation_top1(subject.network)
        key = hashlib.sha256(repr(wish).encode("utf-8")).hexdigest()[:12]
        folder = self.folder / f"{wish.name}-{key}"
        return self._tuning.tune(subject, wish.plan, folder).validation_top1

    def validation_top1(self, network: Any) -> float:
        """See ``Tuner``."""
        return self._tuning.validation_top1(network)

    def steps_of(self, epochs: int) -> int:
        """See ``Tuner``."""
        return epochs * max(1, len(self.dataset.train) // self.recipe.schedule.batch_size)

    def batches(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """See ``Tuner``."""
        from smidgen.export.calibration import in_turn
        from smidgen.export.pictures import picture_of, pixel_batches

        chosen = in_turn([picture_of(example) for example in self.dataset.train])[:count]
        labels = np.array([picture.label for picture in chosen], np.int64)
        preprocessing = self.recipe.data.preprocessing()
        return np.concatenate(list(pixel_batches(chosen, preprocessing, 32))), labels

    @cached_property
    def _tuning(self) -> Tuning:
        from smidgen.train.fitting.tuning import Tuning, tuning_material

        try:
            material = tuning_material(self.recipe, self.dataset, self.progress)
        except DataError as error:
            raise SourceError(str(error)) from error
        return Tuning(self.normalization, self.recipe, material, self.progress)


@dataclass
class FakeTuner:
    """A ``Tuner`` for tests: changes nothing, remembers what it was asked for."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    top1: float = 0.9

    def __post_init__(self) -> None:
        self.wishes: list[TuningWish] = []

    def tune(self, subject: TuningSubject, wish: TuningWish) -> float:
        """Call ``before_step`` for every step and train nothing."""
        self.wishes.append(wish)
        for step in range(self.steps_of(wish.plan.epochs)):
            subject.before_step(step)
        return self.top1

    def validation_top1(self, network: Any) -> float:  # noqa: ARG002
        """Always the same."""
        return self.top1

    def steps_of(self, epochs: int) -> int:
        """Ten to an epoch."""
        return 10 * epochs

    def batches(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The first of the given ones."""
        return self.pixels[:count], self.labels[:count]
