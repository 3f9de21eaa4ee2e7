"""``train``: from a recipe to a finished Run. Light to import: Keras comes last."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from smidgen.train.augment.margins import margin_of
from smidgen.train.backend import select_backend
from smidgen.train.data import SPLITS, Dataset, Inventory, divide
from smidgen.train.data.near_duplicates import near_duplicates
from smidgen.train.data.report import data_report, write_data_report
from smidgen.train.data.scan import take_inventory
from smidgen.train.errors import DataError
from smidgen.train.fitting.material import Material
from smidgen.train.following import follow, tell
from smidgen.train.hosts import Group, Hosts, joined
from smidgen.train.lock import sole_writer
from smidgen.train.models.facts import check_model, parameters_of
from smidgen.train.models.weights_file import check_weights
from smidgen.train.pixels import (
    ReferenceDecoder,
    TrainingDecoder,
    open_pixels,
    require_space,
)
from smidgen.train.progress import Progress, SilentProgress
from smidgen.train.recipe import DataRecipe, TrainRecipe
from smidgen.train.run import Run

_CHECKPOINT_BYTES = 52
"""Per parameter, float32: weights, two moments, average and gathered gradients, old and new; best
weights, old and new; model.keras."""


@dataclass(frozen=True)
class Options:
    """How a training goes on its way; none of it changes the result."""

    checkpoint_every_steps: int = 500
    hosts: Hosts = field(default_factory=Hosts)


def train(
    recipe: TrainRecipe,
    folder: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    options: Options = Options(),
) -> Run:
    """Train ``recipe`` into ``folder`` and return the finished Run.

    An interrupted Run in ``folder`` goes on from its last checkpoint; a finished one is returned
    as it is, if its images did not change; one that another process is training is waited for. What
    can be wrong with recipe, images, weights and disk is found out before Keras is imported and
    before anything is decoded.

    Args:
        recipe: what to train; relative paths in it are taken from the current directory.
        folder: the Run folder; made where it does not exist.
        progress: is told what happens; nothing is shown by default.
        options: how often to save; which process this is, if several train together (JAX).

    Raises:
        TrainError: see the tree in ``errors.py``.
        SmidgenError: also SchemaError and OutputError of the runtime.
        KeyboardInterrupt: passed on; the folder stays fit to be resumed.
    """
    progress = progress or SilentProgress()
    recipe = _with_absolute_paths(recipe)
    run = Run(folder)
    with joined(options.hosts, recipe, progress.note) as group:
        if group.leads:
            _lead(recipe, run, group, progress, options)
        else:
            follow(recipe, group, progress, options.checkpoint_every_steps)
        group.share(b"")  # all wait until the Run is whole
    return run


def _lead(
    recipe: TrainRecipe, run: Run, group: Group, progress: Progress, options: Options
) -> None:
    """What one process alone does; with others, the part of the one that leads."""
    run.check_recipe(recipe)
    if run.is_finished:
        _check_images(recipe.data, run)
        tell(None, group)
    else:
        inventory = _checked(recipe, run)
        with sole_writer(run.folder, progress.note):
            run.keep_recipe(recipe)
            material = _prepared(recipe, run, inventory, progress)
            tell(None if material is None else material.dataset, group)
            if material is not None:
                _train(run, replace(material, group=group), progress, options)
    for leftover in (run.checkpoints_path, run.cache_path):
        shutil.rmtree(leftover, ignore_errors=True)


def _check_images(data: DataRecipe, run: Run) -> None:
    """Raise RunMismatch where the images are not those of the finished ``run`` any more.

    Where their folder is gone altogether there is nothing to compare, and nothing else to train on.
    """
    if not Path(data.folder).is_dir():
        return
    inventory = take_inventory(data.folder, data)
    skipped = {item.path for item in run.dataset().skipped}
    undecodable = [item.example for item in inventory.found if item.example.path in skipped]
    inventory = inventory.without({example.sha256: "" for example in undecodable})
    together = run.dataset().look_alikes
    run.keep_dataset(divide(inventory, data.shares, data.seed, together))


def _checked(recipe: TrainRecipe, run: Run) -> Inventory:
    """The images, where they, the weights and the place are fit for training; writes nothing."""
    data = recipe.data
    if run.folder.is_relative_to(data.folder):
        raise DataError(
            f"the Run folder {run.folder} lies inside the images' folder {data.folder}, where it "
            "would be taken for a class; choose another place"
        )
    check_weights(recipe.model)
    for teacher in recipe.distillation.teachers:
        Run.open(teacher)
    inventory = take_inventory(data.folder, data)
    check_model(recipe.model, len(inventory.labels), data.image_size)
    divide(inventory, data.shares, data.seed)
    return inventory


def _prepared(
    recipe: TrainRecipe, run: Run, inventory: Inventory, progress: Progress
) -> Material | None:
    """All that comes before Keras; None where another process has finished the Run meanwhile."""
    if run.is_finished:
        return None
    material = _decoded(recipe, inventory, progress)
    run.keep_dataset(material.dataset)
    parameters = parameters_of(recipe.model)
    require_space(run.folder, _CHECKPOINT_BYTES * parameters, "the checkpoints")
    _describe(recipe, run, inventory, material, progress)
    return material


def _train(run: Run, material: Material, progress: Progress, options: Options) -> None:
    select_backend(run.recipe.schedule.backend)
    from smidgen.train.fitting.fit import fit

    fit(run, material, progress, options.checkpoint_every_steps)


def _decoded(recipe: TrainRecipe, inventory: Inventory, progress: Progress) -> Material:
    """The images without those that cannot be decoded, divided, and their pixels."""
    data = recipe.data
    examples = [item.example for item in inventory.found]
    margin = margin_of(recipe.schedule, data.image_size)
    training = open_pixels(examples, TrainingDecoder(data.preprocessing(), margin), progress)
    is_looked_for = data.near_duplicates == "together"
    together = near_duplicates(examples, training) if is_looked_for else ()
    unreadable = dict(training.unreadable)
    while True:
        dataset = divide(inventory.without(unreadable), data.shares, data.seed, together)
        answered = (*dataset.validation, *dataset.test)
        held_out = open_pixels(answered, ReferenceDecoder(data.preprocessing()), progress)
        if not held_out.unreadable:
            return Material(dataset, training, held_out)
        unreadable |= held_out.unreadable


def _describe(
    recipe: TrainRecipe, run: Run, inventory: Inventory, material: Material, progress: Progress
) -> None:
    """What is known of the images, for people: a few lines, and once a report and a picture."""
    from smidgen.train.data.contact_sheet import draw_samples

    dataset = material.dataset
    _tell(dataset, run, progress)
    report = data_report(inventory, dataset, recipe.data.image_size)
    for note in report.notes:
        progress.note(note)
    if not run.samples_path.is_file():
        write_data_report(run.data_report_path, report)
        draw_samples(dataset, material.training, run.samples_path)


def _with_absolute_paths(recipe: TrainRecipe) -> TrainRecipe:
    data = replace(recipe.data, folder=_absolute(recipe.data.folder))
    model, distillation = recipe.model, recipe.distillation
    if model.weights not in ("imagenet", "none"):
        model = replace(model, weights=_absolute(model.weights))
    teachers = tuple(map(_absolute, distillation.teachers))
    distillation = replace(distillation, teachers=teachers)
    return replace(recipe, data=data, model=model, distillation=distillation)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _tell(dataset: Dataset, run: Run, progress: Progress) -> None:
    counts = ", ".join(f"{len(dataset.split(name))} {name}" for name in SPLITS)
    is_turned = dataset.task == "orientation"
    turns = " (validation and test hold each image in all four turns)" if is_turned else ""
    progress.note(f"{len(dataset.labels)} classes; images: {counts}{turns}")
    for name in SPLITS:
        absent = dataset.absent(name)
        if absent:
            named = ", ".join(map(repr, absent[:3])) + (" ..." if len(absent) > 3 else "")
            progress.note(f"{len(absent)} classes have no image in {name}: {named}")
    if dataset.skipped:
        count = len(dataset.skipped)
        progress.note(f"skipped {count} image{'s' * (count != 1)}, listed in {run.skipped_path}")
    if dataset.ignored_files:
        progress.note(f"ignored {dataset.ignored_files} entries that are not images of a class")
