"""Dividing an inventory over train, validation and test: by content, by group, stably."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from smidgen.train.data.components import components
from smidgen.train.data.dataset import SPLITS, Dataset, Example, Found, Inventory, Split
from smidgen.train.errors import DataError

TURNS = 4
LARGEST_SHARE = 0.05
"""Look-alikes join images and groups up to this share of all images (or ``FEWEST_TOO_MANY``):
beyond it they say more about the kind of images than about copies, and would spoil the shares."""
FEWEST_TOO_MANY = 10
_HASH_DIGITS = 15


def divide(
    inventory: Inventory,
    shares: tuple[float, float, float],
    seed: int = 0,
    together: Iterable[Sequence[str]] = (),
) -> Dataset:
    """Divide the images over train, validation and test.

    Each image has a fixed number in [0, 1) made of ``seed`` and its content; ``shares`` cut that
    interval in three. So the split of an image depends on nothing else: not on its name, not on
    the other images; when files are added or removed, the others stay where they are. The price is
    that the shares are met on average, not exactly. One exception: a class with an empty split gets
    the image nearest to that split's interval from its largest split, and such a loan may end when
    files are added.

    The images of a group (``Found.group``), also of several classes, have the number of the group's
    name instead, and so stay together. Images and groups that look-alikes join have the smallest
    hash among them; they may move when another look-alike is added.

    Images in ready splits stay there, whatever their group and look-alikes; only splits that the
    data does not name are cut out of train.

    In the orientation task there is one class; then each image of train gets the turn that its
    content decides (uniform over 0..3), and each of validation and test becomes four examples.

    Args:
        inventory: the images.
        shares: of train, validation and test, adding up to 1.
        seed: another one gives another division.
        together: clusters of SHA-256 of images that look the same; see ``LARGEST_SHARE``.

    Raises:
        DataError: fewer than two classes, or a class with too few images or groups.
    """
    _check_classes(inventory)
    look_alikes = tuple(tuple(cluster) for cluster in together)
    splits = _split(inventory, shares, seed, look_alikes)
    if inventory.task == "orientation":
        splits = _turned(splits, seed)
    return Dataset(
        folder=inventory.folder,
        labels=inventory.labels,
        train=tuple(splits["train"]),
        validation=tuple(splits["validation"]),
        test=tuple(splits["test"]),
        skipped=inventory.skipped,
        ignored_files=inventory.ignored_files,
        task=inventory.task,
        look_alikes=look_alikes,
    )


def position(sha256: str, salt: str) -> float:
    """The fixed number in [0, 1) of a content hash under a salt; uniform over contents."""
    digest = hashlib.sha256(f"{salt}:{sha256}".encode("ascii")).hexdigest()
    return float(int(digest[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS)


def _split(
    inventory: Inventory,
    shares: tuple[float, float, float],
    seed: int,
    look_alikes: Sequence[Sequence[str]],
) -> dict[Split, list[Example]]:
    """The images of each split, class by class, in the order of their numbers."""
    ready = inventory.ready_splits
    cut = _cut_points(shares, ready)
    free = [item for item in inventory.found if item.split in (None, "train")]
    shelves = _hand_out(_blocks(free, look_alikes, seed), cut)
    classes = [""] if inventory.task == "orientation" else list(inventory.labels)
    splits: dict[Split, list[Example]] = {name: [] for name in SPLITS}
    for label, text in enumerate(classes):
        where = " in train/" if ready else ""
        what = f"class {text!r}{where}" if text else f"{inventory.folder}{where}"
        _fill_empty_splits(shelves, label, cut, what)
    for label in range(len(classes)):
        for name, blocks in shelves[label].items():
            splits[name] += [e for block in blocks for e in block.examples if e.label == label]
    for item in sorted(inventory.found, key=lambda item: item.example.label):
        if item.split is not None and item.split not in cut:
            splits[item.split].append(item.example)
    return splits


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


@dataclass(frozen=True)
class _Block:
    """Images that stay in one split: one image, a group, or what look-alikes joined."""

    place: float
    key: str
    examples: tuple[Example, ...]
    labels: frozenset[int]


def _blocks(free: Sequence[Found], together: Sequence[Sequence[str]], seed: int) -> list[_Block]:
    units: dict[str, list[Example]] = defaultdict(list)
    unit_of: dict[str, str] = {}
    for item in free:
        unit = _group_key(item.group) if item.group else item.example.sha256
        units[unit].append(item.example)
        unit_of[item.example.sha256] = unit
    chains = ([unit_of[sha] for sha in cluster if sha in unit_of] for cluster in together)
    largest = max(FEWEST_TOO_MANY, LARGEST_SHARE * len(free))
    for joined in components(chain for chain in chains if chain):
        if sum(len(units[unit]) for unit in joined) <= largest:
            units[joined[0]] = [example for unit in joined for example in units[unit]]
            for unit in joined[1:]:
                del units[unit]
    return [_block(unit, examples, seed) for unit, examples in units.items()]


def _block(key: str, examples: list[Example], seed: int) -> _Block:
    return _Block(
        place=position(key, f"split {seed}"),
        key=key,
        examples=tuple(sorted(examples, key=lambda example: example.sha256)),
        labels=frozenset(example.label for example in examples),
    )


def _group_key(group: str) -> str:
    return hashlib.sha256(f"group:{group}".encode("utf-8", "surrogateescape")).hexdigest()


_Shelf = dict[Split, list[_Block]]


def _hand_out(
    blocks: Iterable[_Block], cut: Mapping[Split, tuple[float, float]]
) -> dict[int, _Shelf]:
    """For each class the blocks with images of it, by split, in the order of their places."""
    shelves: dict[int, _Shelf] = defaultdict(lambda: {name: [] for name in cut})
    for block in sorted(blocks, key=lambda block: (block.place, block.key)):
        name = next(name for name, (low, high) in cut.items() if low <= block.place < high)
        for label in block.labels:
            shelves[label][name].append(block)
    return shelves


def _fill_empty_splits(
    shelves: dict[int, _Shelf], label: int, cut: Mapping[Split, tuple[float, float]], what: str
) -> None:
    shelf = shelves[label]
    blocks = [block for part in shelf.values() for block in part]
    images = sum(e.label == label for block in blocks for e in block.examples)
    needed = f"(one each for {', '.join(cut)})"
    if images < len(cut):
        raise DataError(
            f"{what} has {images} usable image{'s' * (images != 1)}; at least {len(cut)} are "
            f"needed {needed}: add images or remove the class"
        )
    for name, (low, high) in cut.items():
        if not shelf[name] and not _lend(shelves, label, name, (low + high) / 2):
            count = len(blocks)
            raise DataError(
                f"{what} has {images} usable images in {count} group{'s' * (count != 1)} that "
                f"must not be torn apart (data.group_by, or look-alikes); at least {len(cut)} "
                f'are needed {needed}: add images, or choose data.group_by = "none" or '
                'data.near_duplicates = "ignore"'
            )


def _lend(shelves: dict[int, _Shelf], label: int, name: Split, middle: float) -> bool:
    """Move the block nearest to ``middle`` into the empty ``name``, if that empties no other."""
    shelf = shelves[label]
    for lender in sorted(shelf, key=lambda other: -len(shelf[other])):
        spare = [
            block
            for block in shelf[lender]
            if all(len(shelves[other][lender]) > 1 for other in block.labels)
        ]
        if spare:
            nearest = min(spare, key=lambda block: abs(block.place - middle))
            for other in nearest.labels:
                shelves[other][lender].remove(nearest)
                shelves[other][name].append(nearest)
            return True
    return False


def _turned(upright: Mapping[Split, Sequence[Example]], seed: int) -> dict[Split, list[Example]]:
    def turn(example: Example, turn: int) -> Example:
        return replace(example, label=turn, turn=turn)

    return {
        name: [
            turn(example, int(TURNS * position(example.sha256, f"turn {seed}")))
            for example in examples
        ]
        if name == "train"
        else [turn(example, number) for example in examples for number in range(TURNS)]
        for name, examples in upright.items()
    }


def _check_classes(inventory: Inventory) -> None:
    if inventory.task == "orientation":
        if not inventory.found:
            raise DataError(f"{inventory.folder} holds no usable image{_example_reason(inventory)}")
        return
    labels = inventory.labels
    if len(labels) < 2:
        raise DataError(
            f"{inventory.folder} holds {len(labels)} class{'es' * (len(labels) != 1)}"
            f"{f' ({labels[0]!r})' if labels else ''}; at least two are needed"
        )
    present = Counter(item.example.label for item in inventory.found)
    for index, label in enumerate(labels):
        if not present[index]:
            raise DataError(
                f"class {label!r} in {inventory.folder} has no usable image; add images of a known "
                "suffix (.jpg .jpeg .png .webp .bmp), or remove the class"
                f"{_example_reason(inventory, label)}"
            )


def _example_reason(inventory: Inventory, label: str = "") -> str:
    for item in inventory.skipped:
        if not label or f"/{label}/" in item.path.replace("\\", "/"):
            return f" (skipped, for instance, {item.path}: {item.reason})"
    return ""
