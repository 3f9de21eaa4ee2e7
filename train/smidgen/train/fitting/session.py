"""The networks of a training and its stages: what is frozen, what is computed once, what learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from smidgen.train.augment.policies import Augmentation, policy
from smidgen.train.data import Task
from smidgen.train.data.balance import class_weights
from smidgen.train.fitting.feeds import Feed, ImageFeed
from smidgen.train.fitting.material import Material
from smidgen.train.fitting.objective import Objective
from smidgen.train.fitting.optimizer import AdamW
from smidgen.train.fitting.stages import Stage
from smidgen.train.fitting.stepper import stepper
from smidgen.train.fitting.steps import Learning, Stepper
from smidgen.train.fitting.teachers import Teachers
from smidgen.train.fitting.trainee import Trainee, training_copy
from smidgen.train.fitting.training_loop import Job
from smidgen.train.fitting.views import (
    FrozenPart,
    ViewFeed,
    held_out_features,
    training_features,
)
from smidgen.train.models.backbones import Normalization
from smidgen.train.models.blocks import cut, freeze_boundary, frozen_layers
from smidgen.train.models.heads import deployable
from smidgen.train.pixels.batches import Batches, HeldOut, balanced_order
from smidgen.train.pixels.share import Order, home_order
from smidgen.train.progress import Progress
from smidgen.train.recipe import TrainRecipe


@dataclass(frozen=True)
class Hints:
    """Layers whose outputs a teacher teaches, by name, and what they weigh in the loss."""

    layers: tuple[str, ...] = ()
    weight: float = 0.0


@dataclass(frozen=True)
class Student:
    """A network as ``models.network.build`` makes it, and what it is trained with.

    ``copied`` makes what is trained in its place, from the network and the recipe's precision.
    """

    network: Any
    normalization: Normalization
    teachers: Teachers | None = None
    copied: Callable[[Any, str], Any] = training_copy
    hints: Hints = Hints()


class Session:
    """Makes the ``Job`` of each stage of a recipe, all of them on one copy of the network."""

    def __init__(
        self,
        recipe: TrainRecipe,
        student: Student,
        material: Material,
        cache: Path,
        progress: Progress,
    ) -> None:
        self._recipe = recipe
        self._student = student
        self._material = material
        self._cache = cache
        self._progress = progress
        self.copy = student.copied(student.network, recipe.schedule.precision)
        self.augmentation = self._policy(recipe)
        layers, mix = self.augmentation.layers, self.augmentation.mix
        self._whole = Trainee(self.copy, student.normalization, layers, mix, student.hints.layers)
        self.variables = list(self._whole.variables)
        self._validation = material.answered("validation", recipe.schedule.batch_size)

    @cached_property
    def _boundary(self) -> Any:
        schedule, model = self._recipe.schedule, self._recipe.model
        return freeze_boundary(self._student.network, schedule.freeze_to, model)

    def job(self, stage: Stage) -> Job:
        """One stage on the network as it is now."""
        self._freeze(stage)
        parts = self._parts(stage)
        trainee, feed, validation = self._whole, self._feed(stage), self._validation
        if parts is not None:
            trainee, feed, validation = self._on_features(stage, *parts)
        dataset, schedule = self._material.dataset, self._recipe.schedule
        counts = np.array(dataset.counts("train"))
        weights = np.ones(len(counts), np.float32)
        if schedule.balance == "weights":
            weights = class_weights(counts).astype(np.float32)
        return Job(stage, stepper(self._learning(trainee)), feed, validation, weights)

    def stepper(self) -> Stepper:
        """What applies the whole network as it is now."""
        return stepper(self._learning(self._whole))

    def finished_network(self) -> Any:
        """The network as it is saved, with the weights of now."""
        self._student.network.set_weights(self.copy.get_weights())
        return deployable(self._student.network)

    def _policy(self, recipe: TrainRecipe) -> Augmentation:
        schedule = recipe.schedule
        batch_size = min(schedule.batch_size, len(self._material.dataset.train))
        return policy(schedule, recipe.data.image_size, batch_size)

    def _freeze(self, stage: Stage) -> None:
        """Decide what learns. Batch norm of frozen layers works with its stored statistics."""
        for layer in self.copy.layers:
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = not (is_norm and self._recipe.schedule.batch_norm == "frozen")
        if stage.is_partial:
            for layer in frozen_layers(self.copy, self._boundary):
                layer.trainable = False

    def _learning(self, trainee: Trainee) -> Learning:
        schedule, distillation = self._recipe.schedule, self._recipe.distillation
        return Learning(
            trainee,
            AdamW(schedule.weight_decay, schedule.ema, schedule.accumulate_steps),
            Objective(
                schedule.label_smoothing,
                distillation.temperature,
                distillation.teacher_share if self._student.teachers is not None else 0.0,
                self._student.hints.weight,
            ),
            self._student.teachers,
        )

    def _feed(self, stage: Stage) -> Feed:
        dataset, source = self._material.dataset, self._material.training
        labels = np.array([example.label for example in dataset.train], np.int64)
        rows = source.rows_of(dataset.train)
        return ImageFeed(self._batches(source, rows, labels, dataset.task), stage.index)

    def _batches(self, source: Any, rows: np.ndarray, labels: np.ndarray, task: Task) -> Batches:
        schedule = self._recipe.schedule
        return Batches(
            source, rows, labels, schedule.batch_size, seed=schedule.seed, task=task,
            order=self._order(labels), share=self._material.share,
        )  # fmt: skip

    def _order(self, labels: np.ndarray) -> Order | None:
        """Where several hosts may train, the order does not depend on how many there are."""
        schedule = self._recipe.schedule
        if schedule.balance == "sampling":
            return balanced_order(labels, schedule.seed)
        if schedule.backend == "jax":
            return home_order(len(labels), schedule.batch_size, schedule.seed)
        return None

    def _parts(self, stage: Stage) -> tuple[Any, Any] | None:
        """The frozen and the learning part, where the frozen one is to be computed once."""
        if not (stage.is_partial and self._recipe.schedule.feature_views and self._boundary):
            return None
        obstacle = self._obstacle()
        parts: tuple[Any, Any] | None = None if obstacle else cut(self.copy, self._boundary)
        if parts is None:
            self._progress.note(
                f"features are not kept: {obstacle or f'something passes by {self._boundary}'}; "
                "the frozen layers are computed in each epoch"
            )
        return parts

    def _obstacle(self) -> str:
        """What a step needs that features are not, in words; empty: nothing."""
        if self._student.teachers is not None:
            return "teachers look at pixels"
        if self.augmentation.mix is not None:
            return "MixUp and CutMix mix pixels"
        if self._material.group.processes > 1:
            return "that is for one process"
        return ""

    def _on_features(
        self, stage: Stage, lower: Any, upper: Any
    ) -> tuple[Trainee, ViewFeed, HeldOut]:
        """Train ``upper`` on what ``lower`` makes of the images."""
        recipe, material, progress = self._recipe, self._material, self._progress
        frozen = FrozenPart(lower, self._student.normalization)
        made, labels = training_features(
            recipe, material, frozen, self._cache / "features-train.npy", progress
        )  # fmt: skip
        count = len(material.dataset.train)
        views = [
            self._batches(made, np.arange(start, start + count), labels[start:][:count], "classes")
            for start in range(0, len(labels), count)
        ]
        size = recipe.schedule.batch_size
        path = self._cache / "features-validation.npy"
        held_out = held_out_features(self._validation, frozen, path, size, progress)
        return Trainee(upper, None), ViewFeed(views, stage.index), held_out
