"""What a process does in a training that another one leads: it computes, and writes nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence

import numpy as np

from smidgen.train.augment.margins import margin_of
from smidgen.train.backend import select_backend
from smidgen.train.data import Dataset, Example
from smidgen.train.data.dataset_file import as_json, from_json
from smidgen.train.errors import DataError
from smidgen.train.fitting.material import Material, share_of
from smidgen.train.hosts import Group
from smidgen.train.pixels import (
    Decoder,
    PartOfPixels,
    ReferenceDecoder,
    TrainingDecoder,
    open_pixels,
)
from smidgen.train.pixels.share import held_out_positions, own_positions
from smidgen.train.progress import Progress, SilentProgress
from smidgen.train.recipe import TrainRecipe
from smidgen.train.run import Run


def tell(dataset: Dataset | None, group: Group) -> None:
    """Say, as the process that leads, what is trained on; None: nothing, the Run is finished."""
    if group.processes > 1:
        text = "" if dataset is None else json.dumps(as_json(dataset))
        group.share(text.encode("ascii"))


def follow(
    recipe: TrainRecipe, group: Group, progress: Progress, checkpoint_every_steps: int
) -> None:
    """Train with the process that leads ``group``, from its ``tell`` to the end.

    Only the images that this process ever reads are decoded here. They lie under the same paths as
    where the leading process read them.

    Raises:
        DataError: an image cannot be read here.
        TrainError: see ``loop.train``.
    """
    text = group.share(b"")
    if not text:
        return
    dataset = from_json(json.loads(text))
    select_backend(recipe.schedule.backend)
    from smidgen.train.fitting.fit import fit

    material = _own_material(recipe, dataset, group, progress)
    with tempfile.TemporaryDirectory(prefix="smidgen-") as folder:
        run = Run(folder)  # stands in for the real one, which may lie on another machine
        run.keep_recipe(recipe)
        fit(run, material, SilentProgress(), checkpoint_every_steps)


def _own_material(
    recipe: TrainRecipe, dataset: Dataset, group: Group, progress: Progress
) -> Material:
    data, schedule, share = recipe.data, recipe.schedule, share_of(group)
    own: Sequence[Example] = dataset.train
    if schedule.balance != "sampling":  # which may draw any image for any place of a batch
        size = schedule.batch_size
        positions = own_positions(len(dataset.train), size, schedule.seed, share)
        own = [dataset.train[position] for position in positions]
    answered = [
        examples[position]
        for examples in (dataset.validation, dataset.test)
        for position in np.unique(held_out_positions(len(examples), schedule.batch_size, share))
    ]
    margin = margin_of(schedule, data.image_size)
    decoder = TrainingDecoder(data.preprocessing(), margin)
    return Material(
        dataset,
        _decoded(own, decoder, progress),
        _decoded(answered, ReferenceDecoder(data.preprocessing()), progress),
        group,
    )


def _decoded(examples: Sequence[Example], decoder: Decoder, progress: Progress) -> PartOfPixels:
    source = open_pixels(examples, decoder, progress)
    if source.unreadable:
        path = next(item.path for item in examples if item.sha256 in source.unreadable)
        raise DataError(
            f"{path} can be decoded where training is led, and not here: install the same versions "
            "on all hosts"
        )
    return PartOfPixels(source, examples)
