"""The Run folder: everything that one training left behind, and all that later rooms know of it.

recipe.toml          the resolved recipe
dataset.json         task, labels, the images of each split with content hash and turn, look-alikes
skipped.csv          images that were not used, with the reason
data_report.json     counts, sizes and kinds of files, what lies in several splits (``data.report``)
samples.png          a few training images of each class
augmentations.png    what the policy makes of some of them
metrics.jsonl        one line per epoch
steps.jsonl          one line per training step
curves.png           both as a picture
confusion.png        the test split: how often each class was answered with each
classes.png          precision and recall of each class
calibration.png      how often answers of each probability are right
mistakes.png         the wrong answers of the highest probability
predictions.csv      the answer for each image of the test split
tensorboard/         the same for `tensorboard --logdir`
model.keras          the best network: normalised float32 pixels in, logits out
test_metrics.json    that network on the test split; written last: a Run that has it is finished
provenance.json      versions, commit, seeds, hashes, normalisation, times
checkpoints/         state after some step, and the best weights; removed when finished
cache/               what frozen layers made of the images; removed when finished
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smidgen.runtime.errors import SchemaError
from smidgen.runtime.files import write_text
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.schema import build
from smidgen.train.data import Dataset, skipped_csv
from smidgen.train.data.dataset_file import as_json, from_json
from smidgen.train.errors import NotARun, RunMismatch
from smidgen.train.models.backbones import Normalization
from smidgen.train.models.facts import normalization_of
from smidgen.train.recipe import TrainRecipe, differences
from smidgen.train.seeing.evaluation import Evaluation


@dataclass(frozen=True)
class EpochMetrics:
    """One line of ``metrics.jsonl``. ``top1`` values are shares in 0..1.

    ``loss`` and ``top1`` are means over the epoch's augmented training images (with smoothed
    labels), ``val_loss`` and ``val_top1`` are of the validation split as it is. ``epoch`` counts
    from 1 within the stage. ``seconds`` is the whole epoch, ``images_per_second`` its training.
    """

    stage: str
    epoch: int
    loss: float
    top1: float
    val_loss: float
    val_top1: float
    learning_rate: float
    seconds: float
    images_per_second: float


def best_epoch(rows: Sequence[EpochMetrics]) -> int:
    """Index of the best: highest validation top-1; of those the lowest loss, then the first."""
    return max(range(len(rows)), key=lambda index: (rows[index].val_top1, -rows[index].val_loss))


class Run:
    """A Run folder. Making one touches no file; see ``open``."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.recipe_path = self.folder / "recipe.toml"
        self.dataset_path = self.folder / "dataset.json"
        self.skipped_path = self.folder / "skipped.csv"
        self.data_report_path = self.folder / "data_report.json"
        self.samples_path = self.folder / "samples.png"
        self.augmentations_path = self.folder / "augmentations.png"
        self.metrics_path = self.folder / "metrics.jsonl"
        self.steps_path = self.folder / "steps.jsonl"
        self.curves_path = self.folder / "curves.png"
        self.confusion_path = self.folder / "confusion.png"
        self.classes_path = self.folder / "classes.png"
        self.calibration_path = self.folder / "calibration.png"
        self.mistakes_path = self.folder / "mistakes.png"
        self.predictions_path = self.folder / "predictions.csv"
        self.tensorboard_path = self.folder / "tensorboard"
        self.model_path = self.folder / "model.keras"
        self.test_metrics_path = self.folder / "test_metrics.json"
        self.provenance_path = self.folder / "provenance.json"
        self.checkpoints_path = self.folder / "checkpoints"
        self.cache_path = self.folder / "cache"

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """A finished Run. Raises NotARun where there is none, or an unfinished one."""
        run = cls(folder)
        if not run.recipe_path.is_file():
            raise NotARun(
                f"{run.folder} is not a Run folder (no recipe.toml); make one with smidgen train"
            )
        if not run.is_finished:
            raise NotARun(
                f"the Run in {run.folder} is not finished; train again into the same folder: it "
                "goes on after the last whole epoch"
            )
        return run

    def check_recipe(self, recipe: TrainRecipe) -> None:
        """Do nothing if the folder is free or has this recipe.

        Raises:
            RunMismatch: it belongs to another recipe; names each key that differs.
        """
        if not self.recipe_path.is_file():
            return
        changed = differences(self.recipe, recipe)
        if changed:
            raise RunMismatch(
                f"{self.folder} holds a Run of another recipe ({'; '.join(changed)}); choose "
                "another folder, or delete this one"
            )

    def keep_recipe(self, recipe: TrainRecipe) -> None:
        """Write ``recipe``, or check that it is the folder's. Raises RunMismatch."""
        self.check_recipe(recipe)
        if not self.recipe_path.is_file():
            write_text(self.recipe_path, recipe.to_toml())

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def is_finished(self) -> bool:
        """Whether training ended well and the best network was tested."""
        return self.test_metrics_path.is_file() and self.model_path.is_file()

    @property
    def recipe(self) -> TrainRecipe:
        """The resolved recipe. Raises NotARun."""
        try:
            return TrainRecipe.from_toml(self._read(self.recipe_path))
        except SchemaError as error:
            raise NotARun(f"{self.recipe_path}: {error}") from error

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.dataset().labels

    @property
    def normalization(self) -> Normalization:
        """What is done to pixels (0..255) before they enter the network."""
        return normalization_of(self.recipe.model)

    def preprocessing(self) -> Preprocessing:
        """How a picture becomes the network's pixels."""
        return self.recipe.data.preprocessing()

    @property
    def test_metrics(self) -> Evaluation:
        """The best network on the test split. Raises NotARun before the Run is finished."""
        try:
            return build(Evaluation, self._read_json(self.test_metrics_path))
        except SchemaError as error:
            raise NotARun(f"{self.test_metrics_path}: {error}; train again") from error

    def keep_test_metrics(self, result: Evaluation) -> None:
        """Write ``result``, the last file: from now on the Run is finished. Raises OutputError."""
        mapping = dataclasses.asdict(result)
        write_text(self.test_metrics_path, json.dumps(mapping) + "\n")

    @property
    def metrics(self) -> tuple[EpochMetrics, ...]:
        """The epochs in order."""
        lines = self._read(self.metrics_path).splitlines()
        return tuple(EpochMetrics(**json.loads(line)) for line in lines)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, commit, seeds, hashes, normalisation and times."""
        return self._read_json(self.provenance_path)

    def dataset(self) -> Dataset:
        """The images as they were divided, without those that could not be decoded."""
        return from_json(self._read_json(self.dataset_path))

    def keep_dataset(self, dataset: Dataset) -> None:
        """Write ``dataset``, or check that it is the one that this Run started with.

        Raises:
            RunMismatch: images were added, removed or changed since.
        """
        if self.dataset_path.is_file():
            if self.dataset().sha256 != dataset.sha256:
                raise RunMismatch(
                    f"the images in {dataset.folder} changed since the Run in {self.folder} was "
                    "started; choose another folder for the new Run, or delete this one"
                )
            return
        write_text(self.skipped_path, skipped_csv(dataset.skipped))
        # ASCII: any file name fits
        write_text(self.dataset_path, json.dumps(as_json(dataset)) + "\n")

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise NotARun(
                f"{self.folder} has no {path.name}; is it a finished Run folder?"
            ) from error

    def _read_json(self, path: Path) -> dict[str, Any]:
        try:
            mapping: dict[str, Any] = json.loads(self._read(path))
        except ValueError as error:
            raise NotARun(f"{path} is damaged ({error}); train again into a new folder") from error
        return mapping
