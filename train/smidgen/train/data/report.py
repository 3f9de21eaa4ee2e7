"""``data_report.json``: what the data is, and what to know of it before it is trusted."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smidgen.runtime.files import write_text
from smidgen.train.data.dataset import SPLITS, Dataset, Inventory, Skipped, Task
from smidgen.train.data.file_facts import FileFacts, file_facts

UNBALANCED = 3.0
"""More training images than this for each one of the smallest class are worth a note."""

_MOST_LISTED = 100
_SKIPPED_FOR = {
    "the same content as": "copy of another image",
    "the same content is in": "the same content in several classes",
    "no label": "no label in the file's name",
    "listed in": "listed in the index, but not there",
    "cannot be read": "cannot be read",
    "truncated or corrupt": "truncated or corrupt",
}
"""Reasons by how they begin; what follows differs from file to file."""


@dataclass(frozen=True)
class Scattered:
    """Images that belong together, and those sets of them that lie in several splits.

    ``sets`` counts all sets, ``images`` the images in them. ``in_several_splits`` counts the sets
    whose images are in more than one split, and ``listed`` shows 100 of them at most: for each
    split the paths of its images.
    """

    sets: int
    images: int
    in_several_splits: int
    listed: tuple[dict[str, list[str]], ...]


@dataclass(frozen=True)
class DataReport:
    """The data of a Run. ``images`` counts examples by split, ``classes`` by label and split.

    In the orientation task the classes are the turns, and held-out images count four times.
    ``skipped`` counts images by reason; ``imbalance`` is the number of training images of the
    largest class for each one of the smallest; ``look_alikes`` are near-duplicates.
    """

    folder: str
    task: Task
    images: dict[str, int]
    classes: dict[str, dict[str, int]]
    imbalance: float
    files: FileFacts
    skipped: dict[str, int]
    ignored_files: int
    look_alikes: Scattered
    groups: Scattered
    notes: tuple[str, ...]


def data_report(inventory: Inventory, dataset: Dataset, image_size: int) -> DataReport:
    """Count, read the files' headers, and look for what lies in several splits.

    Args:
        inventory: of which ``dataset`` was divided; it knows the groups.
        dataset: the divided images, with their look-alikes.
        image_size: side of the input in pixels, to know which images are smaller.
    """
    by_content = {item.example.sha256: item.example.path for item in inventory.found}
    groups: dict[str, list[str]] = defaultdict(list)
    for item in inventory.found:
        if item.group:
            groups[item.group].append(item.example.sha256)
    counts = {name: dataset.counts(name) for name in SPLITS}
    report = DataReport(
        folder=dataset.folder,
        task=dataset.task,
        images={name: len(dataset.split(name)) for name in SPLITS},
        classes={
            label: {name: counts[name][index] for name in SPLITS}
            for index, label in enumerate(dataset.labels)
        },
        imbalance=_imbalance(dataset),
        files=file_facts(by_content.values()),
        skipped=skipped_by_reason(dataset.skipped),
        ignored_files=dataset.ignored_files,
        look_alikes=_scattered(dataset, dataset.look_alikes, by_content),
        groups=_scattered(dataset, list(groups.values()), by_content),
        notes=(),
    )
    return dataclasses.replace(report, notes=tuple(_notes(report, image_size)))


def write_data_report(path: Path, report: DataReport) -> None:
    """Write ``report`` as JSON. Raises OutputError."""
    write_text(path, json.dumps(dataclasses.asdict(report), indent=2) + "\n")


def skipped_by_reason(skipped: Iterable[Skipped]) -> dict[str, int]:
    """How many images were skipped for each kind of reason, the most frequent first."""
    return dict(Counter(_kind(item.reason) for item in skipped).most_common())


def _imbalance(dataset: Dataset) -> float:
    if dataset.task == "orientation":  # training draws the turns anew, uniformly
        return 1.0
    counts = dataset.counts("train")
    return round(max(counts) / min(counts), 2)


def _kind(reason: str) -> str:
    for start, kind in _SKIPPED_FOR.items():
        if reason.startswith(start):
            return kind
    return reason.partition(";")[0].partition(" (")[0]


def _scattered(
    dataset: Dataset, sets: Sequence[Sequence[str]], paths: Mapping[str, str]
) -> Scattered:
    split_of = {e.sha256: name for name in SPLITS for e in dataset.split(name)}
    known = [[sha for sha in members if sha in split_of] for members in sets]
    apart = [members for members in known if len({split_of[sha] for sha in members}) > 1]
    listed: list[dict[str, list[str]]] = []
    for members in apart[:_MOST_LISTED]:
        by_split: dict[str, list[str]] = defaultdict(list)
        for sha in members:
            by_split[split_of[sha]].append(paths[sha])
        listed.append({name: by_split[name] for name in SPLITS if name in by_split})
    return Scattered(
        sets=len(known),
        images=sum(map(len, known)),
        in_several_splits=len(apart),
        listed=tuple(listed),
    )


def _notes(report: DataReport, image_size: int) -> Iterable[str]:
    if report.imbalance > UNBALANCED:
        trained = {label: counts["train"] for label, counts in report.classes.items()}
        most, fewest = max(trained, key=trained.__getitem__), min(trained, key=trained.__getitem__)
        yield (
            f"class {most!r} has {report.imbalance:.3g} times as many training images as "
            f'{fewest!r}: schedule.balance = "weights" or "sampling" makes up for it'
        )
    for what, sets in (("clusters of look-alikes", report.look_alikes), ("groups", report.groups)):
        if sets.in_several_splits:
            yield (
                f"in more than one split: {sets.in_several_splits:,} of {sets.sets:,} {what} "
                "(data_report.json lists them); validation and test may look too good"
            )
    if report.files.animated:
        yield f"{report.files.animated:,} files are animated; the first frame of each is used"
    smallest = min(report.files.width.smallest, report.files.height.smallest)
    if 0 < smallest < image_size:
        yield f"some images are smaller than the input of {image_size} px, down to {smallest} px"
