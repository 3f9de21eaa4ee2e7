"""A tiny network on a folder of pictures, and as many Runs of it as wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_network import SIDE, tiny_network

from smidgen.train import DataRecipe, Run, ScheduleRecipe, TrainRecipe
from smidgen.train.backend import select_backend
from smidgen.train.progress import SilentProgress

select_backend("tensorflow")

import keras  # noqa: E402

from smidgen.train.data import divide  # noqa: E402
from smidgen.train.data.scan import take_inventory  # noqa: E402
from smidgen.train.fitting.fit import fit_student  # noqa: E402
from smidgen.train.fitting.material import Material  # noqa: E402
from smidgen.train.fitting.session import Student  # noqa: E402
from smidgen.train.fitting.teachers import teachers_of  # noqa: E402
from smidgen.train.loop import Options  # noqa: E402
from smidgen.train.models.backbones import Normalization  # noqa: E402
from smidgen.train.pixels import CacheFolder, ReferenceDecoder, open_pixels  # noqa: E402

SCHEDULE = ScheduleRecipe(
    head_epochs=2, full_epochs=2, head_learning_rate=0.02, full_learning_rate=0.01,
    freeze_to="block_00", feature_views=0, batch_size=8, augmentation="none",
    horizontal_flip=False,
)  # fmt: skip
NORMALIZATION = Normalization((127.0,) * 3, (128.0,) * 3)
COUNTS = {"red": 24, "blue": 24, "green": 24}


class Bench:
    """A folder of pictures, decoded, and as many Runs on it as wanted."""

    def __init__(self, folder: Path, runs: Path, schedule: ScheduleRecipe = SCHEDULE) -> None:
        self.runs = runs
        self.recipe = TrainRecipe(DataRecipe(str(folder), image_size=SIDE), schedule=schedule)
        data = self.recipe.data
        inventory = take_inventory(folder, data)
        examples = [item.example for item in inventory.found]
        decoder, cache = ReferenceDecoder(data.preprocessing()), CacheFolder(runs / "pixels")
        self.pixels = open_pixels(examples, decoder, SilentProgress(), cache)
        self.dataset = divide(inventory.without(self.pixels.unreadable), data.shares)
        self.material = Material(self.dataset, self.pixels, self.pixels)
        self.options = Options()

    def change(self, **settings: Any) -> None:
        """Train the next Runs with another schedule."""
        schedule = dataclasses.replace(self.recipe.schedule, **settings)
        self.recipe = dataclasses.replace(self.recipe, schedule=schedule)

    def student(self, normalization: Normalization = NORMALIZATION) -> Student:
        keras.utils.set_random_seed(self.recipe.schedule.seed)
        teachers = teachers_of(self.recipe.distillation, self.dataset)
        return Student(tiny_network(len(self.dataset.labels)), normalization, teachers)

    def go(self, name: str, progress: SilentProgress | None = None) -> Run:
        """Train into ``name`` as ``fit`` does, but with the tiny network."""
        run = Run(self.runs / name)
        run.keep_recipe(self.recipe)
        run.keep_dataset(self.dataset)
        every = self.options.checkpoint_every_steps
        fit_student(run, self.student(), self.material, progress or SilentProgress(), every)
        return run


@pytest.fixture(scope="module")
def shared(
    make_folder_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Run]:
    """A folder of pictures, and one finished Run on it that several tests look at."""
    place = tmp_path_factory.mktemp("shared")
    folder = make_folder_in(place / "photos", COUNTS)
    return folder, Bench(folder, place / "runs", SCHEDULE).go("whole")


@pytest.fixture
def bench(shared: tuple[Path, Run], tmp_path: Path) -> Bench:
    return Bench(shared[0], tmp_path / "runs", SCHEDULE)


@pytest.fixture
def whole(shared: tuple[Path, Run]) -> Run:
    """A Run of ``bench`` that was never interrupted."""
    return shared[1]
