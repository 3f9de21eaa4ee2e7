"""Our training as a contender: the loop of ``smidgen train``, without its ends of epochs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.bench.training.gate import Gate, Over, standard_gate
from smidgen.bench.training.setting import (
    BATCH_CLASSES,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Setting,
)
from smidgen.train.augment.margins import margin_of
from smidgen.train.backend import select_backend
from smidgen.train.data import Dataset, Example
from smidgen.train.data.scan import take_inventory
from smidgen.train.fitting.feeds import Feed, Step
from smidgen.train.fitting.stages import stages
from smidgen.train.models.facts import normalization_of
from smidgen.train.pixels import ArrayPixels, CacheFolder, PixelSource, TrainingDecoder, decode_all
from smidgen.train.progress import SilentProgress
from smidgen.train.recipe import DataRecipe, ModelRecipe, ScheduleRecipe, TrainRecipe
from smidgen.train.run import EpochMetrics
from smidgen.train.seeing.step_log import StepMetrics


def recipe_of(setting: Setting) -> TrainRecipe:
    """The recipe that trains ``setting``: augmented as by default where it reads files."""
    is_full, reads_files = setting.stage == "full", setting.source == "files"
    schedule = ScheduleRecipe(
        head_epochs=0 if is_full else 1,
        full_epochs=1 if is_full else 0,
        head_learning_rate=LEARNING_RATE,
        full_learning_rate=LEARNING_RATE,
        freeze_to="all",
        feature_views=1 if setting.stage in ("features", "features-pass") else 0,
        warm_up=0.0,
        batch_size=setting.batch_size,
        weight_decay=WEIGHT_DECAY,
        label_smoothing=LABEL_SMOOTHING,
        augmentation="standard" if reads_files else "none",
        horizontal_flip=reads_files,
        precision=setting.precision,
        backend=setting.backend,
    )
    data = DataRecipe(folder=setting.folder, image_size=setting.image_size)
    return TrainRecipe(data, ModelRecipe(), schedule)


def images_of(recipe: TrainRecipe, setting: Setting, cache: Path) -> tuple[Dataset, PixelSource]:
    """The images, all of them for training but one that stands for the held-out splits."""
    if setting.source == "batch":
        side, count = setting.image_size, setting.batch_size
        examples = [Example(f"{n}", n % BATCH_CLASSES, f"{n}") for n in range(count)]
        pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
        labels = tuple(map(str, range(BATCH_CLASSES)))
        source: PixelSource = ArrayPixels(pixels, {f"{n}": n for n in range(count)})
    else:
        inventory = take_inventory(recipe.data.folder, recipe.data)
        examples, labels = [item.example for item in inventory.found], inventory.labels
        margin = margin_of(recipe.schedule, recipe.data.image_size)
        decoder = TrainingDecoder(recipe.data.preprocessing(), margin)
        source = decode_all(examples, decoder, CacheFolder(cache), SilentProgress())
    one = (examples[0],)
    return Dataset(recipe.data.folder, labels, tuple(examples), one, one), source


class Endless:
    """A feed whose first epoch has no end. See ``Feed``."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.steps = 10**9
        self.images = self.steps * (feed.images // feed.steps)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Step]:
        """The epochs of the feed in turn."""
        while True:
            for _, pixels, labels in self._feed.epoch(epoch):
                yield first_step, pixels, labels
            epoch += 1


class GateRecord:
    """Every step goes through the gate. See ``Record``."""

    def __init__(self, gate: Gate, batch_size: int) -> None:
        self._gate, self._batch_size = gate, batch_size

    def step(self, row: StepMetrics) -> None:  # noqa: ARG002
        """See ``Record``."""
        self._gate.step(self._batch_size)

    def epoch(self, row: EpochMetrics, total_steps: int) -> None:
        """Never comes."""

    def note(self, text: str) -> None:
        """Not shown."""


class GateProgress(SilentProgress):
    """Every batch of features goes through the gate. See ``Progress``."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def advance(self, count: int, detail: str = "") -> None:  # noqa: ARG002
        """See ``Progress``."""
        self._gate.step(count)


def train(setting: Setting, gate: Gate, folder: Path) -> None:
    """Train ``setting`` until the gate says that it is over (raises Over).

    ``folder`` is for the decoded images and features; the caller removes it.
    """
    select_backend(setting.backend)
    import keras

    from smidgen.train.fitting.material import Material
    from smidgen.train.fitting.session import Session, Student
    from smidgen.train.models.network import build

    recipe = recipe_of(setting)
    dataset, source = images_of(recipe, setting, folder / "pixels")
    side = setting.image_size
    held_out = ArrayPixels(np.zeros((1, side, side, 3), np.uint8), {dataset.test[0].sha256: 0})
    material = Material(dataset, source, held_out)
    network = build(recipe.model, len(dataset.labels), setting.image_size)
    student = Student(network, normalization_of(recipe.model))
    gate.built({"keras": keras.__version__, setting.backend: _version(setting.backend)})
    if setting.stage == "features-pass":
        _compute_features(recipe, student, material, gate, folder)
    session = Session(recipe, student, material, folder, SilentProgress())
    _train(recipe, session, gate, folder)


def _train(recipe: TrainRecipe, session: Any, gate: Gate, folder: Path) -> None:
    from smidgen.train.fitting.training_loop import TrainingLoop

    job = session.job(stages(recipe.schedule)[0])
    endless = Endless(job.feed)
    loop = TrainingLoop(
        folder=folder / "checkpoints",
        metrics_path=folder / "metrics.jsonl",
        schedule=recipe.schedule,
        network=session.copy,
        variables=session.variables,
        progress=SilentProgress(),
        record=GateRecord(gate, endless.images // endless.steps),
        checkpoint_every_steps=endless.steps,
    )
    loop.run(replace(job, feed=endless))


def _compute_features(
    recipe: TrainRecipe, student: Any, material: Any, gate: Gate, folder: Path
) -> None:
    from smidgen.train.fitting.trainee import training_copy
    from smidgen.train.fitting.views import FrozenPart, training_features
    from smidgen.train.models.blocks import cut, freeze_boundary

    copy = training_copy(student.network, recipe.schedule.precision)
    boundary = freeze_boundary(student.network, recipe.schedule.freeze_to, recipe.model)
    assert boundary is not None
    parts = cut(copy, boundary)
    assert parts is not None
    frozen = FrozenPart(parts[0], student.normalization)
    path, progress = folder / "features.npy", GateProgress(gate)
    while True:
        training_features(recipe, material, frozen, path, progress)
        path.unlink()


def _version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def main() -> None:
    """Train the setting in the first argument, through standard input and output."""
    with tempfile.TemporaryDirectory(prefix="smidgen-bench-") as folder:
        try:
            train(Setting.from_json(sys.argv[1]), standard_gate(), Path(folder))
        except Over:
            return


if __name__ == "__main__":
    main()
