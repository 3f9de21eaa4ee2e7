"""A Dataset as plain values, for ``dataset.json`` of a Run, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smidgen.train.data.dataset import SPLITS, Dataset, Example, Skipped


def as_json(dataset: Dataset) -> dict[str, Any]:
    """Lists, strings and numbers for ``json.dumps``.

    An example is ``[path, label, sha256]``, and ``turn`` after it unless that is 0. Paths are
    relative to the dataset's folder; absolute where an index file names images elsewhere.
    """
    return {
        "folder": dataset.folder,
        "task": dataset.task,
        "labels": list(dataset.labels),
        "sha256": dataset.sha256,
        "ignored_files": dataset.ignored_files,
        "skipped": [[item.path, item.reason] for item in dataset.skipped],
        "splits": {
            name: [_row(example, dataset.folder) for example in dataset.split(name)]
            for name in SPLITS
        },
        "look_alikes": [list(cluster) for cluster in dataset.look_alikes],
    }


def from_json(mapping: Mapping[str, Any]) -> Dataset:
    """The Dataset of which ``as_json`` made ``mapping``."""
    folder = Path(mapping["folder"])
    splits = {
        name: tuple(_example(folder, *row) for row in mapping["splits"][name]) for name in SPLITS
    }
    return Dataset(
        folder=mapping["folder"],
        labels=tuple(mapping["labels"]),
        skipped=tuple(Skipped(*pair) for pair in mapping["skipped"]),
        ignored_files=mapping["ignored_files"],
        task=mapping.get("task", "classes"),
        look_alikes=tuple(tuple(cluster) for cluster in mapping.get("look_alikes", ())),
        **splits,
    )


def _row(example: Example, folder: str) -> Sequence[str | int]:
    path = Path(example.path)
    inside = path.relative_to(folder) if path.is_relative_to(folder) else path
    row: list[str | int] = [inside.as_posix(), example.label, example.sha256]
    return [*row, example.turn] if example.turn else row


def _example(folder: Path, path: str, label: int, sha256: str, turn: int = 0) -> Example:
    return Example(os.fspath(folder / path), label, sha256, turn)
