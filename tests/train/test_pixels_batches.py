"""The order of batches: seeded, resumable, shared between hosts; turns; clean endings."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from smidgen.train.data import Example
from smidgen.train.errors import DataError
from smidgen.train.pixels import (
    ArrayPixels,
    Batches,
    HeldOut,
    PartOfPixels,
    Share,
    balanced_order,
    home_order,
    own_positions,
    turned,
)

SIDE = 8


class CountingRows:
    """Remembers the rows that were asked for; raises at ``broken_row``."""

    def __init__(self, array: np.ndarray, broken_row: int = -1) -> None:
        self._array = array
        self._broken_row = broken_row
        self.taken: list[int] = []

    def take(self, rows: np.ndarray) -> np.ndarray:
        self.taken += rows.tolist()
        if self._broken_row in rows:
            raise OSError("the disk is gone")
        pixels: np.ndarray = self._array[rows]
        return pixels


def squares(count: int) -> np.ndarray:
    """``(count, 8, 8, 3) uint8``: each one's number in the left upper pixel, else noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    pixels[:, 0, 0] = np.arange(count)[:, np.newaxis]
    return pixels


def batches(count: int = 50, size: int = 8, **options: object) -> Batches:
    """Of ``count`` squares whose labels are 1000 + row; the rows lie backwards."""
    rows = np.arange(count)[::-1].copy()
    source = options.pop("source", None) or CountingRows(squares(count))
    return Batches(source, rows, 1000 + rows, size, **{"seed": 7, **options})  # type: ignore[arg-type]


def labels_of(epoch: Iterator[tuple[int, np.ndarray, np.ndarray]]) -> list[int]:
    return [label for _, _, labels in epoch for label in labels.tolist()]


def test_an_epoch_is_the_permutation_that_it_always_was() -> None:
    ours = batches()
    assert (ours.steps, ours.size) == (6, 8)
    expected = np.random.default_rng((7, 1, 3)).permutation(50)[:48]
    got = list(ours.epoch(1, 3))
    assert [step for step, _, _ in got] == [0, 1, 2, 3, 4, 5]
    assert labels_of(iter(got)) == [1000 + 49 - position for position in expected]
    for _, pixels, labels in got:
        assert (pixels.shape, pixels.dtype, labels.dtype) == ((8, 8, 8, 3), np.uint8, np.int64)
        assert (pixels[:, 0, 0, 0] == labels - 1000).all()
    assert labels_of(batches().epoch(1, 4)) != labels_of(iter(got))
    assert labels_of(batches().epoch(0, 3)) != labels_of(iter(got))


def test_fewer_images_than_a_batch_are_one_small_batch() -> None:
    ours = batches(count=5)
    assert (ours.steps, ours.size) == (1, 5)
    assert sorted(labels_of(ours.epoch(0, 1))) == [1000, 1001, 1002, 1003, 1004]
    with pytest.raises(DataError, match="0 training images"):
        batches(count=0)


def test_an_epoch_goes_on_at_any_step_without_reading_what_came_before() -> None:
    source = CountingRows(squares(50))
    whole = list(batches(task="orientation").epoch(0, 2))
    rest = list(batches(task="orientation", source=source).epoch(0, 2, first_step=4))
    assert [step for step, _, _ in rest] == [4, 5]
    for (_, pixels, labels), (_, again, labels_again) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(pixels, again)
        np.testing.assert_array_equal(labels, labels_again)
    assert len(source.taken) == 16
    assert list(batches().epoch(0, 2, first_step=6)) == []


@pytest.mark.parametrize("task", ["classes", "orientation"])
def test_hosts_share_every_batch(task: str) -> None:
    whole = list(batches(task=task).epoch(0, 1))
    sources = [CountingRows(squares(50)) for _ in range(4)]
    parts = [
        list(batches(task=task, source=source, share=Share(host, 4, 4)).epoch(0, 1))
        for host, source in enumerate(sources)
    ]
    for step, pixels, labels in whole:
        shares = [part[step] for part in parts]
        np.testing.assert_array_equal(np.concatenate([share[1] for share in shares]), pixels)
        np.testing.assert_array_equal(np.concatenate([share[2] for share in shares]), labels)
    assert [len(source.taken) for source in sources] == [12, 12, 12, 12]
    assert len({row for source in sources for row in source.taken}) == 48
    with pytest.raises(DataError, match="batches of 8 for 3 devices"):
        batches(share=Share(0, 3, 3))


def test_every_image_has_a_home_that_one_host_reads() -> None:
    count, size, hosts = 53, 8, 4
    order = home_order(count, size, seed=3)
    whole = [labels_of(batches(count, size, order=order).epoch(0, e)) for e in range(40)]
    own = [own_positions(count, size, 3, Share(host, hosts, hosts)) for host in range(hosts)]
    assert sorted(np.concatenate(own).tolist()) == list(range(count))
    read = []
    for host in range(hosts):
        source = CountingRows(squares(count))
        ours = batches(count, size, source=source, order=order, share=Share(host, hosts, hosts))
        for epoch in range(40):
            list(ours.epoch(0, epoch))
        read.append({count - 1 - row for row in source.taken})
        assert read[-1] == set(own[host].tolist())
    for labels in whole:
        assert len(set(labels)) == len(labels) == 48  # none twice
    assert len({label for labels in whole for label in labels}) == count  # the rest varies
    assert (
        whole[0] != whole[1]
        and labels_of(batches(count, size, order=order).epoch(0, 0)) == (whole[0])
    )
    assert home_order(5, 8, 3)(0, 1).shape == (5,)


def test_hosts_share_held_out_batches() -> None:
    array, rows, labels = squares(10), np.arange(10), np.arange(10)
    parts = [
        list(HeldOut(ArrayPixels(array, {}), rows, labels, 3, share=Share(host, 2, 4)))
        for host in range(2)
    ]
    got = np.concatenate([np.concatenate(pair) for pair in zip(*parts, strict=True)])
    assert [part.shape for part in parts[0]] == [(2, 8, 8, 3)] * 3  # batches of 4, not of 3
    np.testing.assert_array_equal(got[:10], array)
    np.testing.assert_array_equal(got[10:], array[[9, 9]])


def test_turns_are_uniform_new_in_each_epoch_and_the_label() -> None:
    array = squares(64)
    ours = Batches(
        ArrayPixels(array, {}), np.arange(64), np.zeros(64, np.int64), 64, seed=1,
        task="orientation",
    )  # fmt: skip
    counts = np.zeros((64, 4), int)
    for epoch in range(200):
        ((_, pixels, labels),) = ours.epoch(0, epoch)
        order = np.random.default_rng((1, 0, epoch)).permutation(64)
        counts[order, labels] += 1
        if epoch < 3:
            for square, row, turn in zip(pixels, order, labels, strict=True):
                np.testing.assert_array_equal(square, np.rot90(array[row], turn))
    assert np.abs(counts.sum(axis=0) / 12800 - 0.25).max() < 0.015
    assert counts.min() > 25 and counts.max() < 80  # 50 expected of each image and turn
    np.testing.assert_array_equal(array, squares(64))


def test_turned_is_rot90_of_each() -> None:
    array = squares(9)
    turns = np.array([0, 1, 2, 3, 4, 5, 3, 2, 1])
    expected = np.stack([np.rot90(square, turn) for square, turn in zip(array, turns, strict=True)])
    backwards = np.stack([np.rot90(s, -turn) for s, turn in zip(array, turns, strict=True)])
    got = turned(array.copy(), turns)
    np.testing.assert_array_equal(got, expected)
    assert (got != backwards).any()


def test_balanced_epochs_draw_every_class_alike() -> None:
    labels = np.array([0] * 80 + [1] * 15 + [2] * 5)
    order = balanced_order(labels, 3)
    epochs = [order(0, epoch) for epoch in range(4)]
    for positions in epochs:
        assert (len(positions), positions.dtype) == (100, np.int64)
        assert sorted(np.bincount(labels[positions]).tolist()) == [33, 33, 34]
        seen = np.bincount(positions, minlength=100)
        assert seen[80:95].min() >= 2 and seen[95:].min() >= 6  # none twice before all once
        assert seen[:80].max() == 1
    assert (epochs[0] != epochs[1]).any()
    np.testing.assert_array_equal(order(0, 2), epochs[2])
    ours = batches(count=100, size=10, order=order)
    assert labels_of(ours.epoch(0, 1)) == [1099 - position for position in epochs[1]]


def test_an_error_comes_through_and_no_thread_stays() -> None:
    before = threading.active_count()
    order = np.random.default_rng((7, 0, 1)).permutation(50)
    broken = CountingRows(squares(50), broken_row=int(49 - order[20]))
    seen = 0
    with pytest.raises(OSError, match="the disk is gone"):
        for _ in batches(source=broken).epoch(0, 1):
            seen += 1
    assert seen == 2
    with pytest.raises(KeyboardInterrupt):
        for step, _, _ in batches().epoch(0, 1):
            if step == 1:
                raise KeyboardInterrupt
    for _ in batches().epoch(0, 1):
        break
    assert threading.active_count() == before


def test_batches_are_read_ahead_but_not_far() -> None:
    source = CountingRows(squares(50))
    epoch = batches(source=source).epoch(0, 1)
    assert source.taken == []
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    assert 8 <= len(source.taken) <= 3 * 8


def test_held_out_images_come_in_order_in_one_shape() -> None:
    array, rows = squares(10), np.array([9, 8, 7, 6, 5, 4, 3])
    labels = np.arange(7)
    held_out = HeldOut(CountingRows(array), rows, labels, 3)
    got = list(held_out)
    assert [pixels.shape for pixels in got] == [(3, 8, 8, 3)] * 3
    np.testing.assert_array_equal(np.concatenate(got)[:7], array[rows])
    np.testing.assert_array_equal(np.concatenate(got)[7:], array[[3, 3]])
    assert (len(held_out), held_out.labels is labels) == (7, True)
    turns = np.array([0, 1, 2, 3, 0, 1, 2])
    square = HeldOut(CountingRows(array), np.full(7, 4), turns, 100, turns)
    (pixels,) = square
    np.testing.assert_array_equal(pixels, [np.rot90(array[4], turn) for turn in turns])


def test_the_fake_source() -> None:
    array = squares(3)
    source = ArrayPixels(array, {"aa": 2, "bb": 0}, {"bb": "too dark"})
    assert (source.side, source.unreadable) == (8, {"bb": "too dark"})
    rows = source.rows_of([Example("x", 0, "aa"), Example("y", 1, "bb"), Example("z", 1, "aa")])
    assert (rows.tolist(), rows.dtype) == ([2, 0, 2], np.int64)
    taken = source.take(rows)
    np.testing.assert_array_equal(taken, array[[2, 0, 2]])
    taken[:] = 0
    np.testing.assert_array_equal(array, squares(3))


def test_pixels_of_other_hosts_are_not_given() -> None:
    array = squares(3)
    examples = [Example("x", 0, "aa"), Example("y", 1, "bb"), Example("z", 1, "cc")]
    part = PartOfPixels(ArrayPixels(array, {"aa": 2, "cc": 1}), [examples[0], examples[2]])
    assert part.rows_of(examples).tolist() == [2, -1, 1]
    np.testing.assert_array_equal(part.take(np.array([1, 2])), array[[1, 2]])
    with pytest.raises(IndexError, match="another process"):
        part.take(np.array([2, -1]))
