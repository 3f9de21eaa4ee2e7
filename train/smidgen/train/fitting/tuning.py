"""Training a network further that was changed after its training: pruned, clustered, quantized.

The same loop, steps and loss as a Run's, without a Run: the folder holds checkpoints only, so that
an interrupted tuning goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from smidgen.train.augment.margins import margin_of
from smidgen.train.data import Dataset
from smidgen.train.errors import DataError
from smidgen.train.fitting import checkpoint
from smidgen.train.fitting.material import Material
from smidgen.train.fitting.session import Hints, Session, Student
from smidgen.train.fitting.stages import stages
from smidgen.train.fitting.teachers import Teachers
from smidgen.train.fitting.trainee import training_copy
from smidgen.train.fitting.training_loop import TrainingLoop, predict
from smidgen.train.models.backbones import Normalization
from smidgen.train.pixels import ReferenceDecoder, TrainingDecoder, open_pixels
from smidgen.train.progress import Progress
from smidgen.train.recipe import TrainRecipe
from smidgen.train.run import EpochMetrics
from smidgen.train.seeing.metrics import top1
from smidgen.train.seeing.step_log import StepMetrics

_CHECKPOINT_EVERY_STEPS = 200


@dataclass(frozen=True)
class TuningPlan:
    """How a network is tuned. Everything else (batches, augmentation, loss) is as the Run's recipe.

    ``learning_rate`` is the peak of a warm-up and cosine. ``teacher_share`` of the loss is decided
    by the teacher's answers at ``temperature``; 0: the labels alone. ``hint_weight`` is that of the
    layers that the subject names for the teacher to teach, see ``Objective``. ``keep``: the weights
    of the best validation, those from before included, or the last ones where the network's
    structure is ready only then.
    """

    epochs: int
    learning_rate: float
    teacher_share: float = 0.5
    temperature: float = 2.0
    hint_weight: float = 0.0
    keep: Literal["best", "last"] = "best"
    batch_norm: Literal["train", "frozen"] = "train"


@dataclass(frozen=True)
class Tuned:
    """How a tuning ended: a row for each epoch, and validation top-1 of what is kept, a share."""

    rows: tuple[EpochMetrics, ...]
    validation_top1: float


class _Notes:
    """A ``Record`` that keeps nothing; the loop's lines go to ``progress``."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def step(self, row: StepMetrics) -> None:
        """See ``Record``."""

    def epoch(self, row: EpochMetrics, total_steps: int) -> None:
        """See ``Record``."""

    def note(self, text: str) -> None:
        """See ``Record``."""
        self._progress.note(text)


def tuning_recipe(recipe: TrainRecipe, plan: TuningPlan) -> TrainRecipe:
    """``recipe`` of a Run with the one stage of ``plan`` in place of its own stages."""
    schedule = replace(
        recipe.schedule,
        head_epochs=0,
        full_epochs=plan.epochs,
        full_learning_rate=plan.learning_rate,
        batch_norm=plan.batch_norm,
        backend="tensorflow",
        precision="float32",
        early_stopping=0,
        ema=0.0,
    )
    distillation = replace(
        recipe.distillation, temperature=plan.temperature, teacher_share=plan.teacher_share
    )
    return replace(recipe, schedule=schedule, distillation=distillation)


def tuning_material(recipe: TrainRecipe, dataset: Dataset, progress: Progress) -> Material:
    """The training and validation images of ``dataset`` as pixels; no test image is touched.

    Raises:
        DataError: an image changed, vanished, or cannot be decoded any more.
    """
    without_test = replace(dataset, test=())
    margin = margin_of(recipe.schedule, recipe.data.image_size)
    preprocessing = recipe.data.preprocessing()
    training = open_pixels(dataset.train, TrainingDecoder(preprocessing, margin), progress)
    held_out = open_pixels(dataset.validation, ReferenceDecoder(preprocessing), progress)
    for source in (training, held_out):
        if source.unreadable:
            name, reason = next(iter(source.unreadable.items()))
            raise DataError(f"an image of the Run ({name[:12]}) {reason}: train again")
    return Material(without_test, training, held_out)


@dataclass(frozen=True)
class TuningSubject:
    """What is tuned: normalised ``(N, H, W, 3) float32`` to logits ``(N, classes) float32``.

    ``teacher``: a network of the same ends whose answers are learnt from; None: the labels alone.
    ``before_step`` is called with the number of each step, counted from 0. ``copied`` takes the
    network and a precision and gives what is trained in its place, with the same weights in the
    same order; a functional Keras network needs none. ``hints``: names of layers that both networks
    have, with outputs of one shape, which the plan's ``hint_weight`` is about.
    """

    network: Any
    teacher: Any = None
    before_step: Callable[[int], None] = lambda _: None
    copied: Callable[[Any, str], Any] = training_copy
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """Trains networks further on the images of one Run.

    ``normalization``: what pixels 0..255 become before they enter a network or a teacher.
    ``recipe``: the Run's: data, batches, augmentation, loss. ``material``: ``tuning_material``'s.
    """

    normalization: Normalization
    recipe: TrainRecipe
    material: Material
    progress: Progress

    def tune(self, subject: TuningSubject, plan: TuningPlan, folder: Path) -> Tuned:
        """Train ``subject.network`` further, in place.

        ``folder`` holds checkpoints; an interrupted tuning of the same subject and plan in it is
        resumed. The batch norms of a functional network get batch statistics while they learn.
        The recipe's seed decides what is random, so that equal tunings end equal to the last bit.

        Raises:
            TrainingDiverged: the loss is not finite any more.
            OutputError: ``folder`` cannot be written to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        before = subject.network.get_weights()
        start = self.validation_top1(subject.network) if plan.keep == "best" else -1.0
        recipe = tuning_recipe(self.recipe, plan)
        keras.utils.set_random_seed(recipe.schedule.seed)
        session = self._session(subject, plan, recipe, folder)
        loop = TrainingLoop(
            folder, folder / "metrics.jsonl", recipe.schedule, session.copy, session.variables,
            self.progress, _Notes(self.progress), _CHECKPOINT_EVERY_STEPS,
        )  # fmt: skip
        saved = checkpoint.load(folder)
        if saved is not None:
            loop.take_up(saved)
        for stage in stages(recipe.schedule):
            if not loop.is_over(stage):
                loop.run(replace(session.job(stage), before_step=subject.before_step))
        if plan.keep == "best":
            session.copy.set_weights(checkpoint.load_best(folder, loop.state))
        rows = loop.state.rows
        row = rows[loop.state.best_row] if plan.keep == "best" else rows[-1]
        if row.val_top1 < start:
            self.progress.note(
                f"tuning did not help: {100 * start:.2f} % before, {100 * row.val_top1:.2f} % at "
                "best after; the weights from before are kept"
            )
            subject.network.set_weights(before)
            return Tuned(tuple(rows), start)
        subject.network.set_weights(session.copy.get_weights())
        return Tuned(tuple(rows), row.val_top1)

    def validation_top1(self, network: Any) -> float:
        """Top-1 of ``network`` on the validation images, a share in 0..1."""
        student = Student(network, self.normalization, copied=lambda same, _: same)
        session = Session(self.recipe, student, self.material, Path(), self.progress)
        answered = self.material.answered("validation", self.recipe.schedule.batch_size)
        logits: np.ndarray = predict(session.stepper(), answered)
        return top1(logits, answered.labels)

    def _session(
        self, subject: TuningSubject, plan: TuningPlan, recipe: TrainRecipe, folder: Path
    ) -> Session:
        teachers = None
        hints = Hints(subject.hints, plan.hint_weight) if plan.hint_weight > 0 else Hints()
        if subject.teacher is not None and (plan.teacher_share > 0 or hints.layers):
            members = [(subject.teacher, self.normalization)]
            teachers = Teachers(members, plan.temperature, hints.layers)
        student = Student(subject.network, self.normalization, teachers, subject.copied, hints)
        return Session(recipe, student, self.material, folder / "cache", self.progress)
