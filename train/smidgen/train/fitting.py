"""The training loop proper: two stages of epochs, each ended by validation and a checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from smidgen.runtime.files import replacing, write_text
from smidgen.train import checkpoint
from smidgen.train.checkpoint import Checkpoint, TrainingState
from smidgen.train.data import Dataset, Split
from smidgen.train.errors import RunError, TrainingDiverged
from smidgen.train.graph import Stage, compile_stage, stages, training_graph
from smidgen.train.models.backbones import BACKBONES
from smidgen.train.models.weights import build
from smidgen.train.pixels import Pixels
from smidgen.train.progress import Progress
from smidgen.train.provenance import provenance
from smidgen.train.recipe import ScheduleRecipe
from smidgen.train.run import EpochMetrics, Run
from smidgen.train.seeing import metrics
from smidgen.train.seeing.curves import draw_curves


@dataclass(frozen=True)
class Images:
    """One split as rows of the decoded images, with their labels: ``(N,) int64`` both."""

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> np.ndarray:
        """Pixels of the images at positions ``chosen``: ``(len(chosen), H, W, 3) uint8``."""
        pixels: np.ndarray = self.pixels[self.rows[chosen]]
        return pixels


def fit(run: Run, dataset: Dataset, pixels: Pixels, progress: Progress) -> None:
    """Train what is left of ``run.recipe``, then test the best network and finish the Run."""
    recipe = run.recipe
    keras.utils.set_random_seed(recipe.schedule.seed)
    network = build(
        recipe.model.backbone,
        len(dataset.labels),
        recipe.data.image_size,
        recipe.model.weights,
        recipe.model.dropout,
    )
    normalization = BACKBONES[recipe.model.backbone].normalization
    graph = training_graph(network, normalization, recipe.schedule)
    loop = TrainingLoop(run, recipe.schedule, network, graph, progress)
    train = images_of(dataset, pixels, "train")
    validation = images_of(dataset, pixels, "validation")
    loop.go(train, validation)
    loop.finish(dataset, images_of(dataset, pixels, "test"))


def predict(graph: Any, images: Images, batch_size: int) -> np.ndarray:
    """Logits ``(N, classes) float32``; the last batch is filled up, so that all have one shape."""
    batch_size = min(batch_size, len(images))
    parts = []
    for start in range(0, len(images), batch_size):
        chosen = np.arange(start, start + batch_size)
        logits = graph.predict_on_batch(images.take(np.minimum(chosen, len(images) - 1)))
        parts.append(np.asarray(logits, np.float32))
    return np.concatenate(parts)[: len(images)]


class TrainingLoop:
    """Everything that stays the same from epoch to epoch, and the state that does not."""

    def __init__(
        self, run: Run, schedule: ScheduleRecipe, network: Any, graph: Any, progress: Progress
    ) -> None:
        self._run = run
        self._schedule = schedule
        self._network = network
        self._graph = graph
        self._progress = progress
        self._state = TrainingState()

    def go(self, train: Images, validation: Images) -> None:
        """All epochs that the last checkpoint has not seen."""
        saved = checkpoint.load(self._run.checkpoints_path)
        if saved is not None:
            self._state = saved.state
            self._progress.note(f"resuming after epoch {len(saved.state.rows)} of {self._total()}")
            self._restore(self._graph.variables, saved.model)
        steps = len(list(_batches(len(train), self._schedule.batch_size, (0,))))
        for stage in stages(self._schedule):
            done = self._state.epochs_done(stage.name)
            if done == stage.epochs:
                continue
            compile_stage(self._graph, self._network, stage, steps, self._schedule)
            if saved is not None and done:
                self._restore(self._graph.optimizer.variables, saved.optimizer)
            for epoch in range(done + 1, stage.epochs + 1):
                self._epoch(stage, epoch, train, validation)

    def finish(self, dataset: Dataset, test: Images) -> None:
        """Test the best network and write the Run's last files; the test metrics come last."""
        run, state = self._run, self._state
        self._network.set_weights(checkpoint.load_best(run.checkpoints_path, state))
        self._network.trainable = True
        logits = predict(self._graph, test, self._schedule.batch_size)
        result = metrics.evaluation(logits, test.labels, dataset.labels)
        with replacing(run.model_path) as temporary:
            self._network.save(temporary)
        title = f"{run.name}: test top-1 {result.top1_percent:.2f} % of {result.images} images"
        draw_curves(state.rows, run.curves_path, title)
        facts = provenance(run, dataset, state)
        write_text(run.provenance_path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        run.keep_test_metrics(result)
        self._progress.note(
            f"test top-1 {result.top1_percent:.2f} % ({result.top1_low_percent:.1f} to "
            f"{result.top1_high_percent:.1f} %, {result.images} images), best epoch "
            f"{state.best_row + 1} of {len(state.rows)}"
        )

    def _epoch(self, stage: Stage, epoch: int, train: Images, validation: Images) -> None:
        began = time.monotonic()
        self._progress.start(f"{stage.name} {epoch}/{stage.epochs}", len(train))
        try:
            logs, count = self._pass(stage, epoch, train)
            trained_seconds = time.monotonic() - began
            logits = predict(self._graph, validation, self._schedule.batch_size)
        finally:
            self._progress.finish()
        optimizer = self._graph.optimizer
        row = EpochMetrics(
            stage=stage.name,
            epoch=epoch,
            loss=logs["loss"],
            top1=logs["top1"],
            val_loss=metrics.cross_entropy(logits, validation.labels),
            val_top1=metrics.top1(logits, validation.labels),
            learning_rate=float(keras.ops.convert_to_numpy(optimizer.learning_rate)),
            seconds=round(time.monotonic() - began, 3),
            images_per_second=round(count / trained_seconds, 2),
        )
        self._save(row)
        self._progress.note(
            f"{stage.name} {epoch}/{stage.epochs}  loss {row.loss:.4f}  "
            f"top-1 {100 * row.top1:.2f} %  validation loss {row.val_loss:.4f}  "
            f"top-1 {100 * row.val_top1:.2f} %  {row.images_per_second:.0f} images/s  "
            f"{row.seconds:.0f} s"
        )

    def _pass(self, stage: Stage, epoch: int, train: Images) -> tuple[dict[str, float], int]:
        """One pass over the training images: mean loss and top-1, and the count of images."""
        one_hot = np.eye(self._network.output_shape[-1], dtype=np.float32)
        order = (self._schedule.seed, [s.name for s in stages(self._schedule)].index(stage.name))
        sums = {"loss": 0.0, "top1": 0.0}
        count = 0
        for chosen in _batches(len(train), self._schedule.batch_size, (*order, epoch)):
            result = self._graph.train_on_batch(
                train.take(chosen), one_hot[train.labels[chosen]], return_dict=True
            )
            if not np.isfinite(result["loss"]):
                raise TrainingDiverged(
                    f"the loss became {result['loss']} in epoch {epoch} of the stage {stage.name}; "
                    f"lower schedule.{stage.name}_learning_rate ({stage.learning_rate:g})"
                )
            count += len(chosen)
            for name in sums:
                sums[name] += float(result[name]) * len(chosen)
            means = {name: total / count for name, total in sums.items()}
            self._progress.advance(
                len(chosen), f"loss {means['loss']:.3f}, top-1 {100 * means['top1']:.1f} %"
            )
        return means, count

    def _save(self, row: EpochMetrics) -> None:
        self._state = self._state.after(row)
        is_best = self._state.best_row == len(self._state.rows) - 1
        checkpoint.save(
            self._run.checkpoints_path,
            Checkpoint(
                self._state,
                _arrays(self._graph.variables),
                _arrays(self._graph.optimizer.variables),
            ),
            _arrays(self._network.weights) if is_best else None,
        )
        write_text(self._run.metrics_path, checkpoint.metrics_jsonl(self._state.rows))

    def _restore(self, variables: list[Any], arrays: tuple[np.ndarray, ...]) -> None:
        if [tuple(v.shape) for v in variables] != [array.shape for array in arrays]:
            raise RunError(
                f"the checkpoint in {self._run.checkpoints_path} is of another version of the "
                "training graph; delete that folder to train from the beginning"
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def _total(self) -> int:
        return sum(stage.epochs for stage in stages(self._schedule))


def images_of(dataset: Dataset, pixels: Pixels, name: Split) -> Images:
    """The rows and labels of one split."""
    examples = dataset.split(name)
    labels = np.array([example.label for example in examples], np.int64)
    return Images(pixels.array, pixels.rows_of(examples), labels)


def _batches(count: int, batch_size: int, seed: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Positions 0..count-1 in an order that ``seed`` decides, in whole batches.

    The rest that fills no batch is left out of this epoch (another one each time); fewer images
    than one batch are one small batch.
    """
    order = np.random.default_rng(seed).permutation(count)
    if count < batch_size:
        yield order
    for start in range(0, count - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def _arrays(variables: list[Any]) -> tuple[np.ndarray, ...]:
    tensors = [keras.ops.convert_to_tensor(variable) for variable in variables]
    return tuple(np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors)
