"""The training loop: stages of epochs of steps, with checkpoints on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from smidgen.runtime.files import write_text
from smidgen.train.errors import RunError, TrainingDiverged
from smidgen.train.fitting import checkpoint
from smidgen.train.fitting.checkpoint import Checkpoint, Tally, TrainingState
from smidgen.train.fitting.feeds import Feed
from smidgen.train.fitting.stages import Stage, learning_rate
from smidgen.train.fitting.steps import Batch, Stepper, StepResult
from smidgen.train.pixels.batches import HeldOut
from smidgen.train.progress import Progress
from smidgen.train.recipe import ScheduleRecipe
from smidgen.train.run import EpochMetrics
from smidgen.train.seeing.metrics import cross_entropy, top1
from smidgen.train.seeing.step_log import StepMetrics

_EXPLODED = 100.0
"""A loss this many times that of an answer at random is beyond coming back."""


@dataclass(frozen=True)
class Job:
    """One stage, ready to be trained.

    ``class_weights``: ``(C,) float32``, what an image of each class counts in the loss.
    ``before_step`` is called with the number of each step of the stage, counted from 0.
    """

    stage: Stage
    stepper: Stepper
    feed: Feed
    validation: HeldOut
    class_weights: np.ndarray
    before_step: Callable[[int], None] = lambda _: None


class Done(NamedTuple):
    """A step that was begun, with its number in the epoch; its results are still to come."""

    step: int
    rate: float
    images: int
    result: StepResult


class Record(Protocol):
    """Where a training keeps its state and its numbers."""

    def step(self, row: StepMetrics) -> None:
        """One step is done."""

    def epoch(self, row: EpochMetrics, total_steps: int) -> None:
        """One epoch is done and validated."""

    def note(self, text: str) -> None:
        """One line that must be seen."""


@dataclass
class TrainingLoop:
    """Everything that stays the same from stage to stage, and the state that does not.

    ``network`` is what is validated and kept; ``variables`` are all that a checkpoint must hold.
    Where ``is_writer`` is False (another process writes for all) nothing is written.
    """

    folder: Path
    metrics_path: Path
    schedule: ScheduleRecipe
    network: Any
    variables: list[Any]
    progress: Progress
    record: Record
    checkpoint_every_steps: int
    is_writer: bool = True

    def __post_init__(self) -> None:
        self.state = TrainingState()
        self._optimizer: tuple[np.ndarray, ...] = ()

    def take_up(self, saved: Checkpoint) -> None:
        """Go on from ``saved``. Raises RunError where it is of another network."""
        if [tuple(v.shape) for v in self.variables] != [array.shape for array in saved.model]:
            raise self._other_version()
        for variable, array in zip(self.variables, saved.model, strict=True):
            variable.assign(array)
        self.state, self._optimizer = saved.state, saved.optimizer

    def now(self) -> Checkpoint:
        """Where training stands between two stages."""
        return Checkpoint(self.state, _arrays(self.variables), self._optimizer)

    def is_over(self, stage: Stage) -> bool:
        """Whether ``stage`` has all its epochs, or was stopped early."""
        patience = self.schedule.early_stopping
        stopped = 0 < patience <= self.state.epochs_since_best(stage.name)
        return stopped or self.state.epochs_done(stage.name) >= stage.epochs

    def run(self, job: Job) -> None:
        """What is left of a stage."""
        stage = job.stage
        if self.state.stage == stage.name:
            try:
                job.stepper.restore_optimizer(self._optimizer)
            except ValueError as error:
                raise self._other_version() from error
        else:
            self.state = replace(self.state, stage=stage.name, tally=Tally())
        while not self.is_over(stage):
            self._epoch(job, self.state.epochs_done(stage.name) + 1)
        if self.state.epochs_done(stage.name) < stage.epochs:
            self.record.note(
                f"{stage.name}: no better validation for {self.schedule.early_stopping} epochs, "
                "stopped early"
            )

    def _epoch(self, job: Job, epoch: int) -> None:
        stage, stepper = job.stage, job.stepper
        began, before = time.monotonic(), self.state.tally.seconds
        self.progress.start(f"{stage.name} {epoch}/{stage.epochs}", job.feed.images)
        try:
            self._steps(job, epoch)
            tally = self.state.tally
            with self._averaged(stepper):
                logits = predict(stepper, job.validation)
                stepper.write_back()
                candidate = _arrays(self.network.weights)
        finally:
            self.progress.finish()
        seconds = before + time.monotonic() - began
        row = EpochMetrics(
            stage=stage.name,
            epoch=epoch,
            loss=tally.mean_loss,
            top1=tally.top1,
            val_loss=cross_entropy(logits, job.validation.labels),
            val_top1=top1(logits, job.validation.labels),
            learning_rate=self._rate(job, epoch, job.feed.steps - 1),
            seconds=round(seconds, 3),
            images_per_second=round(tally.images / max(tally.seconds, 1e-9), 2),
        )
        self.state = self.state.after(row)
        if self.schedule.ema and self.is_over(stage):
            stepper.set_trained(stepper.optimizer_state()[3])
        is_best = self.state.best_row == len(self.state.rows) - 1
        self.record.epoch(row, self.state.total_steps)  # before it counts as done
        self._save(stepper, candidate if is_best else None)
        self.record.note(
            f"{stage.name} {epoch}/{stage.epochs}  loss {row.loss:.4f}  "
            f"top-1 {100 * row.top1:.2f} %  validation loss {row.val_loss:.4f}  "
            f"top-1 {100 * row.val_top1:.2f} %  {row.images_per_second:.0f} images/s  "
            f"{row.seconds:.0f} s"
        )

    def _steps(self, job: Job, epoch: int) -> None:
        """The steps that are left of an epoch. A step's numbers are read while the next one runs:
        waiting for them would leave an accelerator idle."""
        classes = np.eye(len(job.class_weights), dtype=np.float32)
        done = self.state.tally
        images = job.feed.images // job.feed.steps  # of all hosts
        self.progress.advance(done.images, _so_far(done) if done.steps else "")
        self._clock = time.monotonic()
        waiting: Callable[[], None] | None = None
        for step, pixels, labels in job.feed.epoch(epoch, done.steps):
            rate = self._rate(job, epoch, step)
            batch = Batch(pixels, classes[labels], job.class_weights[labels])
            job.before_step(self._stage_step(job, epoch, step))
            is_update = (self._stage_step(job, epoch, step) + 1) % self._accumulate == 0
            result = job.stepper.step(batch, rate, is_update)
            if waiting is not None:
                waiting()
            waiting = self._counting(job, epoch, Done(step, rate, images, result))
            if (self.state.total_steps + 1) % self.checkpoint_every_steps == 0:
                waiting()
                waiting = None
                self._save(job.stepper, None)
        if waiting is not None:
            waiting()

    def _counting(self, job: Job, epoch: int, done: Done) -> Callable[[], None]:
        def count() -> None:
            loss, right = float(done.result.loss), float(done.result.hits)
            chance = math.log(max(2, len(job.class_weights)))
            if not math.isfinite(loss) or loss > _EXPLODED * chance:
                raise self._diverged(job.stage, epoch, done, loss)
            now = time.monotonic()
            seconds, self._clock = now - self._clock, now
            tally = self.state.tally.plus(done.images, loss, right)
            tally = replace(tally, seconds=tally.seconds + seconds)
            total = self.state.total_steps + 1
            self.state = replace(self.state, tally=tally, total_steps=total)
            speed = round(done.images / max(seconds, 1e-9), 2)
            self.record.step(StepMetrics(total, job.stage.name, epoch, loss, done.rate, speed))
            self.progress.advance(done.images, _so_far(tally))

        return count

    def _diverged(self, stage: Stage, epoch: int, done: Done, loss: float) -> TrainingDiverged:
        precision = self.schedule.precision
        other = "" if precision == "float32" else ', or schedule.precision = "float32"'
        return TrainingDiverged(
            f"the loss became {loss:g} at step {done.step + 1} of epoch {epoch} of the stage "
            f"{stage.name}, at a learning rate of {done.rate:.3g}: try a lower schedule."
            f"{stage.name}_learning_rate ({stage.learning_rate:g}), a longer schedule.warm_up "
            f"({self.schedule.warm_up:g}){other}"
        )

    @property
    def _accumulate(self) -> int:
        return self.schedule.accumulate_steps

    def _stage_step(self, job: Job, epoch: int, step: int) -> int:
        return (epoch - 1) * job.feed.steps + step

    def _rate(self, job: Job, epoch: int, step: int) -> float:
        updates = max(1, job.feed.steps * job.stage.epochs // self._accumulate)
        update = min(self._stage_step(job, epoch, step) // self._accumulate, updates - 1)
        return learning_rate(job.stage, self.schedule, update, updates)

    @contextmanager
    def _averaged(self, stepper: Stepper) -> Iterator[None]:
        """Let the trained variables be their running average, where the recipe asks for one."""
        if not self.schedule.ema:
            yield
            return
        kept = stepper.trained()
        stepper.set_trained(stepper.optimizer_state()[3])
        try:
            yield
        finally:
            stepper.set_trained(kept)

    def _save(self, stepper: Stepper, best: tuple[np.ndarray, ...] | None) -> None:
        stepper.write_back()
        if not self.is_writer:
            return
        checkpoint.save(
            self.folder,
            Checkpoint(self.state, _arrays(self.variables), stepper.optimizer_state()),
            best,
        )
        write_text(self.metrics_path, checkpoint.metrics_jsonl(self.state.rows))

    def _other_version(self) -> RunError:
        return RunError(
            f"the checkpoint in {self.folder} is of another version of the training graph; delete "
            "that folder to train from the beginning"
        )


def predict(stepper: Stepper, images: HeldOut) -> np.ndarray:
    """Logits ``(N, C) float32`` of held-out images; all batches have one shape."""
    return np.concatenate([stepper.predict(pixels) for pixels in images])[: len(images)]


def _so_far(tally: Tally) -> str:
    return f"loss {tally.mean_loss:.3f}, top-1 {100 * tally.top1:.1f} %"


def _arrays(variables: list[Any]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(keras.ops.convert_to_numpy(variable)) for variable in variables)
