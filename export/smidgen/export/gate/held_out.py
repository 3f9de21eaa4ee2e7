"""The images on which two model files are compared: labelled, and never trained on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smidgen.export.errors import GateError
from smidgen.export.pictures import Picture, picture_of

if TYPE_CHECKING:
    from smidgen.train.data import Dataset
    from smidgen.train.run import Run

_LABELS_SHOWN = 5


@dataclass(frozen=True)
class HeldOut:
    """Pictures with the index of their label among the models'; ``origin`` says where from.

    ``notes``: what whoever reads the result should know, a line each.
    """

    pictures: tuple[Picture, ...]
    origin: str
    notes: tuple[str, ...] = ()


def from_class_folders(folder: str | os.PathLike[str], labels: Sequence[str]) -> HeldOut:
    """The images of ``folder/<label>/``; of ready splits (train/ and test/) the test split.

    Equal content counts once, and not at all where it lies under two labels.

    Args:
        folder: a folder for each class, named as the models' labels; some may be absent.
        labels: the models' labels, in order.

    Raises:
        DataError: no such folder, no class folders, no images.
        GateError: a folder that no label names, or ready splits without test images.
    """
    from smidgen.train.data.scan import take_inventory
    from smidgen.train.recipe import DataRecipe

    inventory = take_inventory(folder, DataRecipe(folder=str(folder)))
    wanted = "test" if inventory.ready_splits else None
    index_of = _indices(inventory.labels, labels, str(folder))
    pictures = tuple(
        replace(picture_of(item.example), label=index_of[item.example.label])
        for item in inventory.found
        if item.split == wanted
    )
    if not pictures:
        raise GateError(f"{folder} holds no test images: give a folder of images not trained on")
    notes = [f"left out {item.path}: {item.reason}" for item in inventory.skipped]
    notes += _absent(pictures, labels)
    origin = f"{folder}/test" if wanted else str(folder)
    return HeldOut(tuple(sorted(pictures, key=_order)), origin, tuple(notes))


def test_split(run: Run, labels: Sequence[str]) -> HeldOut:
    """The test split of a finished Run.

    Raises:
        GateError: it is empty, or the Run has a label that the models lack.
    """
    dataset = run.dataset()
    if not dataset.test:
        raise GateError(f"{run.folder} has no test images: nothing can be verified on them")
    index_of = _indices(dataset.labels, labels, str(run.folder))
    pictures = tuple(
        replace(picture_of(example), label=index_of[example.label]) for example in dataset.test
    )
    notes = tuple(_absent(pictures, labels))
    return HeldOut(pictures, f"the test split of {run.folder}", notes)


def check_not_trained_on(held_out: HeldOut, dataset: Dataset, owner: str) -> None:
    """Refuse images that ``owner``, trained on ``dataset``, has learnt from or was chosen by.

    Raises:
        GateError: one of them is in the train or validation split.
    """
    known = {example.sha256 for example in (*dataset.train, *dataset.validation)}
    seen = [picture for picture in held_out.pictures if picture.sha256 in known]
    if seen:
        raise GateError(
            f"{len(seen)} of {len(held_out.pictures)} images were trained on by {owner} (such as "
            f"{seen[0].path}): a gate needs images that no model has seen; take them out, or name "
            "the Run with --run"
        )


def check_same_data(data_sha256: str, dataset: Dataset, run: str, candidate: str) -> None:
    """Refuse the test split of a Run for a candidate that was trained on another division.

    Raises:
        GateError: the candidate's manifest names other data.
    """
    if data_sha256 != dataset.sha256:
        raise GateError(
            f"{candidate} was made of other images than the Run {run} (by the hash in its "
            "manifest), so it may have been trained on that Run's test images: name the Run that "
            "it comes from, or --images FOLDER"
        )


def _indices(names: Sequence[str], labels: Sequence[str], where: str) -> list[int]:
    """The index in ``labels`` of each of ``names``. Raises GateError."""
    places = {label: index for index, label in enumerate(labels)}
    for name in names:
        if name not in places:
            near = difflib.get_close_matches(name, labels, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise GateError(
                f"{where} has the class {name!r}, which the files do not know; {hint}their labels "
                f"are {_shown(labels)}"
            )
    return [places[name] for name in names]


def _absent(pictures: Iterable[Picture], labels: Sequence[str]) -> list[str]:
    present = {picture.label for picture in pictures}
    absent = [label for index, label in enumerate(labels) if index not in present]
    return [f"no images of {len(absent)} labels: {_shown(absent)}"] if absent else []


def _shown(labels: Sequence[str]) -> str:
    more = len(labels) - _LABELS_SHOWN
    return ", ".join(labels[:_LABELS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _order(picture: Picture) -> tuple[int, str]:
    return (-1 if picture.label is None else picture.label, picture.sha256)
