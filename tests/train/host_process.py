"""One process of a training on the tiny network: run by ``test_hosts.py`` on the JAX interpreter.

Its argument is a JSON object: see ``Order``. On stdout it prints one JSON object at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tiny_network import SIDE, tiny_network

from smidgen.train import DataRecipe, Run, ScheduleRecipe, TrainRecipe
from smidgen.train.augment.margins import margin_of
from smidgen.train.backend import select_backend
from smidgen.train.data import Dataset, divide
from smidgen.train.data.scan import take_inventory
from smidgen.train.errors import TrainError
from smidgen.train.fitting.material import Material, share_of
from smidgen.train.hosts import Group, Hosts, joined
from smidgen.train.models.backbones import Normalization
from smidgen.train.pixels import (
    CacheFolder,
    PixelSource,
    ReferenceDecoder,
    TrainingDecoder,
    open_pixels,
)
from smidgen.train.progress import SilentProgress


@dataclass(frozen=True)
class Order:
    """What to train, where, and what to do wrong."""

    photos: str
    run: str
    pixels: str
    schedule: dict[str, Any]
    coordinator: str = ""
    processes: int = 1
    process_id: int = -1
    checkpoint_every_steps: int = 500
    kill_at_step: int = 0
    is_wrong_shard: bool = False


class Counting:
    """A source that remembers which rows were asked for; kills the process, where it is told to."""

    def __init__(self, source: PixelSource, kill_at: int = 0) -> None:
        self.source, self.side, self.unreadable = source, source.side, source.unreadable
        self.taken: list[int] = []
        self._calls_left = kill_at

    def rows_of(self, examples: Any) -> np.ndarray:
        return self.source.rows_of(examples)

    def take(self, rows: np.ndarray) -> np.ndarray:
        self._calls_left -= 1
        if self._calls_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.taken += rows.tolist()
        return self.source.take(rows)


@dataclass(frozen=True)
class WrongGroup(Group):
    """The planted fault: every process believes that it is the first one to read."""

    process: int = 0
    processes: int = 2
    true_process: int = field(default=0)

    @property
    def leads(self) -> bool:
        return self.true_process == 0


def trained(order: Order, recipe: TrainRecipe, group: Group) -> dict[str, Any]:
    """Train as ``fit`` does; what there is to compare."""
    select_backend("jax")
    import keras

    from smidgen.train.fitting.fit import fit_student
    from smidgen.train.fitting.session import Student

    data = recipe.data
    inventory = take_inventory(data.folder, data)
    dataset: Dataset = divide(inventory, data.shares)
    cache, quiet = CacheFolder(Path(order.pixels)), SilentProgress()
    margin = margin_of(recipe.schedule, data.image_size)
    decoder = TrainingDecoder(data.preprocessing(), margin)
    training = Counting(open_pixels(dataset.train, decoder, quiet, cache), order.kill_at_step)
    answered = (*dataset.validation, *dataset.test)
    exact = ReferenceDecoder(data.preprocessing())
    held_out = Counting(open_pixels(answered, exact, quiet, cache))
    run = Run(order.run if group.leads else f"{order.run}-{group.process}")
    run.keep_recipe(recipe)
    run.keep_dataset(dataset)
    if order.is_wrong_shard:
        group = WrongGroup(true_process=group.process)
    keras.utils.set_random_seed(recipe.schedule.seed + group.process)  # process 0's weights count
    student = Student(tiny_network(3), Normalization((127.0,) * 3, (128.0,) * 3))
    material = Material(dataset, training, held_out, group)
    fit_student(run, student, material, quiet, order.checkpoint_every_steps)
    wrote = sorted(p.name for p in run.folder.iterdir())
    return {
        "taken": training.taken,
        "answered": held_out.taken,
        "images": len(dataset.train),
        "devices": share_of(group).devices,
        "wrote": wrote,
    }


def main() -> int:
    order = Order(**json.loads(sys.argv[1]))
    recipe = TrainRecipe(
        DataRecipe(order.photos, image_size=SIDE),
        schedule=ScheduleRecipe(backend="jax", freeze_to="block_00", **order.schedule),
    )
    hosts = Hosts(order.coordinator, order.processes, order.process_id)
    try:
        with joined(hosts, recipe, lambda text: print(text, file=sys.stderr)) as group:
            print(json.dumps(trained(order, recipe, group)))
    except TrainError as error:
        print(f"smidgen: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
