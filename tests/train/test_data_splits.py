"""Dividing: shares, stability, classes, groups, look-alikes, turns. No file is touched."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from smidgen.train import Dataset, Example
from smidgen.train.data import SPLITS, Found, Inventory, divide, position
from smidgen.train.errors import DataError

SHARES = (0.7, 0.1, 0.2)


def inventory_of(per_class: int, classes: int = 2) -> Inventory:
    """An inventory without files: content hashes are made up."""
    found = tuple(
        Found(Example(f"/x/{'abcdefgh'[label]}/{n}", label, f"{label * 100_000 + n:064x}"), None)
        for label in range(classes)
        for n in range(per_class)
    )
    return Inventory("/x", tuple("abcdefgh"[:classes]), found, (), 0)


def in_groups(inventory: Inventory, size: int) -> Inventory:
    """The same images in groups of ``size`` neighbours."""
    found = tuple(
        replace(item, group=f"document {n // size}") for n, item in enumerate(inventory.found)
    )
    return replace(inventory, found=found)


def split_of(dataset: Dataset) -> dict[str, str]:
    return {e.sha256: name for name in SPLITS for e in dataset.split(name)}


def test_shares_are_met_on_average() -> None:
    dataset = divide(inventory_of(5000), SHARES)
    for label in range(2):
        counts = [dataset.counts(name)[label] for name in SPLITS]
        # Three binomial standard deviations of 5,000 images; a fault of 3 points would be seen.
        assert counts == pytest.approx([3500, 500, 1000], abs=97)
    assert split_of(divide(inventory_of(5000), (0.67, 0.13, 0.2))) != split_of(dataset)


def test_images_keep_their_split_when_files_are_added() -> None:
    small, large = divide(inventory_of(400), SHARES), divide(inventory_of(500), SHARES)
    before, after = split_of(small), split_of(large)
    assert {sha: after[sha] for sha in before} == before
    reseeded = split_of(divide(inventory_of(400), SHARES, seed=1))
    assert sum(reseeded[sha] != before[sha] for sha in before) > 200


@pytest.mark.parametrize("per_class", [3, 4, 5, 8])
def test_no_split_of_a_class_is_empty(per_class: int) -> None:
    dataset = divide(inventory_of(per_class, classes=8), SHARES)
    for name in SPLITS:
        assert min(dataset.counts(name)) >= 1
    assert len(split_of(dataset)) == 8 * per_class


def test_positions_are_uniform() -> None:
    places = [position(f"{n:064x}", "split 0") for n in range(10_000)]
    assert min(places) >= 0
    assert max(places) < 1
    assert sum(places) / len(places) == pytest.approx(0.5, abs=0.01)


def test_unreadable_images_leave_and_are_listed() -> None:
    inventory = inventory_of(10)
    bad = {item.example.sha256: "truncated" for item in inventory.found[:4]}
    dataset = divide(inventory.without(bad), SHARES)
    assert [item.reason for item in dataset.skipped] == ["truncated"] * 4
    assert len(split_of(dataset)) == 16
    all_of_one = {item.example.sha256: "truncated" for item in inventory.found[:10]}
    with pytest.raises(DataError, match=r"class 'a' .*no usable image.*truncated"):
        divide(inventory.without(all_of_one), SHARES)


def test_dataset_hash_sees_a_moved_image() -> None:
    dataset = divide(inventory_of(20), SHARES)
    moved = replace(dataset, train=dataset.train[1:], test=(*dataset.test, dataset.train[0]))
    assert moved.sha256 != dataset.sha256


def test_the_division_is_the_one_that_finished_runs_have() -> None:
    """A golden value: Runs that exist must find their images divided as before."""
    dataset = divide(inventory_of(40, classes=3), SHARES, seed=5)
    assert dataset.sha256 == "1b00e41c8621f1669ed467d4c614d1adb2f735574f60886cdf4b74fa25e2c8fd"
    order = [int(e.sha256, 16) for e in dataset.validation]
    assert order == [
        2,
        22,
        17,
        3,
        7,
        24,
        37,
        100020,
        100015,
        200004,
        200002,
        200011,
        200018,
        200032,
        200035,
        200017,
        200029,
    ]


def test_a_group_stays_whole_and_keeps_its_split() -> None:
    small, large = in_groups(inventory_of(400), 8), in_groups(inventory_of(480), 8)
    dataset = divide(small, SHARES)
    splits = split_of(dataset)
    of_group: dict[str, set[str]] = {}
    for item in small.found:
        of_group.setdefault(item.group, set()).add(splits[item.example.sha256])
    assert len(of_group) == 100
    assert {len(names) for names in of_group.values()} == {1}
    # The same documents with other pages: what decides is the name of the group.
    others = tuple(
        replace(item, example=replace(item.example, sha256=f"{n + 7_000_000:064x}"))
        for n, item in enumerate(small.found)
    )
    moved = split_of(divide(replace(small, found=others), SHARES))
    assert [moved[i.example.sha256] for i in others] == [
        splits[i.example.sha256] for i in small.found
    ]
    grown = split_of(divide(replace(small, found=small.found + large.found[880:]), SHARES))
    assert {sha: grown[sha] for sha in splits} == splits


def test_shares_of_groups_are_met_on_average() -> None:
    dataset = divide(in_groups(inventory_of(5000), 5), SHARES)
    # Three binomial standard deviations of 2,000 groups of five images.
    assert [len(dataset.split(name)) for name in SPLITS] == pytest.approx(
        [7000, 1000, 2000], abs=310
    )
    alone = divide(inventory_of(5000), SHARES)
    assert split_of(alone) != split_of(dataset)


@pytest.mark.parametrize("people", [4, 7, 20])
def test_a_group_may_span_classes(people: int) -> None:
    """Few people, so that some seeds must lend a whole group to a split that would be empty."""
    inventory = inventory_of(60, classes=3)
    found = tuple(
        replace(item, group=f"person {n % people}") for n, item in enumerate(inventory.found)
    )
    for seed in range(20):
        dataset = divide(replace(inventory, found=found), SHARES, seed)
        splits = split_of(dataset)
        assert len({(i.group, splits[i.example.sha256]) for i in found}) == people
        assert sum(len(dataset.split(name)) for name in SPLITS) == 180
        assert min(min(dataset.counts(name)) for name in SPLITS) >= 1


def test_a_class_with_too_few_groups_is_told_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        divide(in_groups(inventory_of(40), 20), SHARES)
    assert "class 'a' has 40 usable images in 2 groups that must not be torn apart" in str(
        caught.value
    )
    assert 'data.group_by = "none"' in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(split_of(divide(in_groups(inventory_of(60), 20), SHARES))) == 120


def test_look_alikes_are_in_one_split() -> None:
    inventory = inventory_of(400)
    shas = [item.example.sha256 for item in inventory.found]
    pairs = [(shas[n], shas[n + 400]) for n in range(0, 400, 4)]  # across the two classes
    alone = split_of(divide(inventory, SHARES))
    assert sum(alone[one] != alone[other] for one, other in pairs) > 20
    dataset = divide(inventory, SHARES, together=pairs)
    joined = split_of(dataset)
    assert all(joined[one] == joined[other] for one, other in pairs)
    assert dataset.look_alikes == tuple(pairs)
    apart = [sha for sha in shas if all(sha not in pair for pair in pairs)]
    assert {sha: joined[sha] for sha in apart} == {sha: alone[sha] for sha in apart}


def test_look_alikes_join_groups() -> None:
    inventory = in_groups(inventory_of(400), 4)
    found = inventory.found
    link = (found[0].example.sha256, found[404].example.sha256)
    splits = split_of(divide(inventory, SHARES, together=[link]))
    eight = [i.example.sha256 for i in found if i.group in (found[0].group, found[404].group)]
    assert len(eight) == 8
    assert len({splits[sha] for sha in eight}) == 1


def test_too_many_look_alikes_are_not_joined() -> None:
    inventory = inventory_of(400)
    cluster = tuple(item.example.sha256 for item in inventory.found[:41])
    alone = divide(inventory, SHARES)
    assert split_of(divide(inventory, SHARES, together=[cluster])) == split_of(alone)
    joined = split_of(divide(inventory, SHARES, together=[cluster[:40]]))
    assert len({joined[sha] for sha in cluster[:40]}) == 1


def test_images_of_ready_splits_stay_whatever_they_look_like() -> None:
    inventory = inventory_of(30)
    found = tuple(
        replace(item, split="test" if n % 3 == 0 else "train", group=f"g{n // 6}")
        for n, item in enumerate(inventory.found)
    )
    clusters = [tuple(item.example.sha256 for item in found[:3])]
    dataset = divide(replace(inventory, found=found), SHARES, together=clusters)
    splits = split_of(dataset)
    assert all((splits[i.example.sha256] == "test") == (i.split == "test") for i in found)
    assert min(dataset.counts("validation")) >= 1


def orientation_inventory(images: int) -> Inventory:
    found = tuple(
        Found(replace(item.example, label=0), None) for item in inventory_of(images // 2).found
    )
    return Inventory("/x", ("0", "90", "180", "270"), found, (), 0, task="orientation")


def test_orientation_turns_held_out_images_four_times_and_train_once() -> None:
    dataset = divide(orientation_inventory(4000), SHARES)
    assert dataset.task == "orientation"
    for name in ("validation", "test"):
        examples = dataset.split(name)
        assert [e.turn for e in examples[:8]] == [0, 1, 2, 3] * 2
        assert {Counter(e.sha256 for e in examples)[e.sha256] for e in examples} == {4}
        assert len(set(dataset.counts(name))) == 1
    assert all(e.turn == e.label for name in SPLITS for e in dataset.split(name))
    assert len({e.sha256 for e in dataset.train}) == len(dataset.train)
    # 2,800 images: three binomial standard deviations around a quarter.
    assert dataset.counts("train") == pytest.approx([700] * 4, abs=70)
    upright = {e.sha256 for name in SPLITS for e in dataset.split(name)}
    assert len(upright) == 4000
    grown = divide(orientation_inventory(4400), SHARES)
    before = {e.sha256: e.turn for e in dataset.train}
    assert {e.sha256: e.turn for e in grown.train if e.sha256 in before} == before


def test_orientation_needs_an_image_for_each_split() -> None:
    dataset = divide(orientation_inventory(4), SHARES)
    assert [len(dataset.split(name)) for name in SPLITS] == [2, 4, 4]
    with pytest.raises(DataError, match=r"^/x has 2 usable images; at least 3 are needed"):
        divide(orientation_inventory(2), SHARES)
