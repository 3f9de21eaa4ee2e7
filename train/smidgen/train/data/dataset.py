"""The nouns of the data: images found, images skipped, and the dataset made of them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Task = Literal["classes", "orientation"]


@dataclass(frozen=True)
class Example:
    """One image: absolute path, index of its label, SHA-256 of the file's content.

    ``turn``: quarter turns counter-clockwise that are made (``numpy.rot90(pixels, turn)``) after
    the picture became a square of pixels; 0..3, and 0 but in the orientation task.
    """

    path: str
    label: int
    sha256: str
    turn: int = 0


@dataclass(frozen=True)
class Skipped:
    """One image that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Found:
    """One image with the ready split it lies in (None: a hash decides) and its group.

    The images of a ``group`` stay in one split; "" is no group.
    """

    example: Example
    split: Split | None
    group: str = ""


@dataclass(frozen=True)
class Inventory:
    """The distinct images of a folder, hashed, before they are divided (see ``scan``).

    In the orientation task each image is here once, upright, with label 0.
    """

    folder: str
    labels: tuple[str, ...]
    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]
    ignored_files: int
    task: Task = "classes"

    @property
    def ready_splits(self) -> frozenset[Split]:
        """The splits that the data names; empty where hashes decide all."""
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
    """Labels and the three splits.

    No content is in two splits, nor twice in one; only in the orientation task each image of
    validation and test is there four times, once for each turn.

    ``look_alikes`` lists the SHA-256 of near-duplicates, cluster by cluster: whoever divides the
    same images again needs them.
    """

    folder: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    skipped: tuple[Skipped, ...] = ()
    ignored_files: int = 0
    task: Task = "classes"
    look_alikes: tuple[tuple[str, ...], ...] = ()

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


def skipped_csv(skipped: Iterable[Skipped]) -> str:
    """``path,reason`` lines with a header; bytes of a name that are no UTF-8 as ``\\udc..``."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows((item.path, item.reason) for item in skipped)
    return stream.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")
