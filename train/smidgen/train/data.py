"""The images of a Run: who is trained on, chosen with and tested on.

Two layouts are understood:

- class folders: ``FOLDER/<label>/<image>``, divided by content hash (see ``divide``)
- ready splits: ``FOLDER/{train,validation,test}/<label>/<image>`` (``val`` and ``valid`` are taken
  for ``validation``); where validation or test is absent it is cut out of train by content hash

JPEG, PNG, WebP and BMP files count as images, by suffix; other files and hidden ones are ignored
and counted. Files are never moved or changed.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from smidgen.train.errors import DataError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_HASH_DIGITS = 15


@dataclass(frozen=True)
class Example:
    """One image: absolute path, index of its label, SHA-256 of the file's content."""

    path: str
    label: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """One image that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Found:
    """One image with the ready split it lies in; None where a hash decides."""

    example: Example
    split: Split | None


@dataclass(frozen=True)
class Inventory:
    """The distinct images of a folder, hashed, before they are divided (see ``scan``)."""

    folder: str
    labels: tuple[str, ...]
    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]
    ignored_files: int

    @property
    def ready_splits(self) -> frozenset[Split]:
        """The splits that exist as folders; empty for class folders."""
        return frozenset(item.split for item in self.found if item.split is not None)

    def without(self, unreadable: Mapping[str, str]) -> Inventory:
        """The inventory less the images in ``unreadable`` (SHA-256 -> reason), now skipped."""
        bad = [item.example for item in self.found if item.example.sha256 in unreadable]
        return replace(
            self,
            found=tuple(item for item in self.found if item.example.sha256 not in unreadable),
            skipped=self.skipped
            + tuple(
                Skipped(example.path, unreadable[example.sha256].removeprefix(f"{example.path}: "))
                for example in bad
            ),
        )


@dataclass(frozen=True)
class Dataset:
    """Labels and the three splits. No content is in two splits, nor twice in one."""

    folder: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    skipped: tuple[Skipped, ...] = ()
    ignored_files: int = 0

    def split(self, name: Split) -> tuple[Example, ...]:
        """The examples of one split."""
        examples: tuple[Example, ...] = getattr(self, name)
        return examples

    @property
    def sha256(self) -> str:
        """SHA-256 over label, split and content hash of every image; the order does not matter."""
        lines = sorted(
            f"{name}\t{self.labels[example.label]}\t{example.sha256}\n"
            for name in SPLITS
            for example in self.split(name)
        )
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()

    def counts(self, name: Split) -> tuple[int, ...]:
        """Images per label of one split."""
        counter = Counter(example.label for example in self.split(name))
        return tuple(counter[index] for index in range(len(self.labels)))

    def absent(self, name: Split) -> tuple[str, ...]:
        """The labels without an image in one split; there are some in ready splits only."""
        counts = zip(self.labels, self.counts(name), strict=True)
        return tuple(label for label, count in counts if count == 0)


def divide(inventory: Inventory, shares: tuple[float, float, float], seed: int = 0) -> Dataset:
    """Divide the images over train, validation and test.

    Each image has a fixed number in [0, 1) made of ``seed`` and its content; ``shares`` cut that
    interval in three. So the split of an image depends on nothing else: not on its name, not on
    the other images; when files are added or removed, the others stay where they are. The price is
    that the shares are met on average, not exactly. One exception: a class with an empty split gets
    the image nearest to that split's interval from its largest split, and such a loan may end when
    files are added.

    Images in ready splits stay there; only splits that are no folders are cut out of train.

    Raises:
        DataError: fewer than two classes, or a class with too few images.
    """
    _check_classes(inventory)
    ready = inventory.ready_splits
    cut = _cut_points(shares, ready)
    by_class: dict[int, list[Found]] = {index: [] for index in range(len(inventory.labels))}
    for item in inventory.found:
        by_class[item.example.label].append(item)
    splits: dict[Split, list[Example]] = {name: [] for name in SPLITS}
    for label, items in by_class.items():
        free = [item.example for item in items if item.split in (None, "train")]
        name_of_class = f"class {inventory.labels[label]!r}{' in train/' if ready else ''}"
        parts = _divide_class(free, cut, seed, name_of_class)
        for name in SPLITS:
            splits[name] += parts.get(name, [])
            splits[name] += [i.example for i in items if i.split == name and name not in cut]
    return Dataset(
        folder=inventory.folder,
        labels=inventory.labels,
        train=tuple(splits["train"]),
        validation=tuple(splits["validation"]),
        test=tuple(splits["test"]),
        skipped=inventory.skipped,
        ignored_files=inventory.ignored_files,
    )


def position(sha256: str, salt: str) -> float:
    """The fixed number in [0, 1) of a content hash under a salt; uniform over contents."""
    digest = hashlib.sha256(f"{salt}:{sha256}".encode("ascii")).hexdigest()
    return float(int(digest[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS)


def skipped_csv(skipped: Iterable[Skipped]) -> str:
    """``path,reason`` lines with a header; bytes of a name that are no UTF-8 as ``\\udc..``."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows((item.path, item.reason) for item in skipped)
    return stream.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")


def _cut_points(
    shares: tuple[float, float, float], ready: frozenset[Split]
) -> dict[Split, tuple[float, float]]:
    """The interval of each split that is cut by hash: all three, or train and the absent ones."""
    names = [name for name in SPLITS if name == "train" or name not in ready]
    weights = {name: shares[SPLITS.index(name)] for name in names}
    total = sum(weights.values())
    intervals: dict[Split, tuple[float, float]] = {}
    low = 0.0
    for name in names:
        high = 1.0 if name == names[-1] else low + weights[name] / total
        intervals[name] = (low, high)
        low = high
    return intervals


def _divide_class(
    examples: list[Example], cut: Mapping[Split, tuple[float, float]], seed: int, what: str
) -> dict[Split, list[Example]]:
    if len(examples) < len(cut):
        raise DataError(
            f"{what} has {len(examples)} usable image{'s' * (len(examples) != 1)}; at least "
            f"{len(cut)} are needed (one each for {', '.join(cut)}): add images or remove the class"
        )
    places = {example.sha256: position(example.sha256, f"split {seed}") for example in examples}
    ordered = sorted(examples, key=lambda example: (places[example.sha256], example.sha256))
    parts: dict[Split, list[Example]] = {
        name: [example for example in ordered if low <= places[example.sha256] < high]
        for name, (low, high) in cut.items()
    }
    for name, (low, high) in cut.items():
        if not parts[name]:
            lender = max(parts, key=lambda other: len(parts[other]))
            middle = (low + high) / 2
            nearest = min(parts[lender], key=lambda e: abs(places[e.sha256] - middle))
            parts[lender].remove(nearest)
            parts[name].append(nearest)
    return parts


def _check_classes(inventory: Inventory) -> None:
    labels = inventory.labels
    if len(labels) < 2:
        raise DataError(
            f"{inventory.folder} holds {len(labels)} class{'es' * (len(labels) != 1)}"
            f"{f' ({labels[0]!r})' if labels else ''}; at least two class folders are needed"
        )
    present = Counter(item.example.label for item in inventory.found)
    for index, label in enumerate(labels):
        if not present[index]:
            raise DataError(
                f"class {label!r} in {inventory.folder} has no usable image; add images of a known "
                "suffix (.jpg .jpeg .png .webp .bmp) directly in its folder, or remove the folder"
                f"{_example_reason(inventory, label)}"
            )
    if not inventory.found:
        raise DataError(f"{inventory.folder} holds no usable image")


def _example_reason(inventory: Inventory, label: str) -> str:
    for item in inventory.skipped:
        if f"/{label}/" in item.path.replace("\\", "/"):
            return f" (skipped, for instance, {item.path}: {item.reason})"
    return ""
