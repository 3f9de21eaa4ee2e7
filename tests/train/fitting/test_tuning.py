"""Tuning a network further: equal to the last bit again, and where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny_network import tiny_network

from smidgen.train.fitting.tuning import Tuned, Tuning, TuningPlan, TuningSubject
from smidgen.train.models.backbones import Normalization
from smidgen.train.progress import SilentProgress

Bench = Any

PLAN = TuningPlan(2, 0.01, teacher_share=0.5)
STEPS_OF_AN_EPOCH = 6


class Killed(Exception):
    """In place of a signal."""


class Killing(SilentProgress):
    """Ends the process, as it were, after so many steps."""

    def __init__(self, after_steps: int) -> None:
        super().__init__()
        self._left = after_steps

    def advance(self, count: int, detail: str = "") -> None:
        super().advance(count, detail)
        self._left -= bool(count)
        if self._left == 0:
            raise Killed


def networks(bench: Bench) -> tuple[Any, Any]:
    """The network to tune, and its teacher: always the same two."""
    keras.utils.set_random_seed(7)
    classes = len(bench.dataset.labels)
    return tiny_network(classes), tiny_network(classes)


def tuned(
    bench: Bench, folder: Path, progress: SilentProgress | None = None, used: int = 0
) -> tuple[Tuned, list[np.ndarray]]:
    """Tune into ``folder``; ``used``: how much chance the process has used up before."""
    network, teacher = networks(bench)
    keras.utils.set_random_seed(used)
    normalization = Normalization((127.0,) * 3, (128.0,) * 3)
    tuning = Tuning(normalization, bench.recipe, bench.material, progress or SilentProgress())
    return tuning.tune(TuningSubject(network, teacher), PLAN, folder), network.get_weights()


@pytest.fixture
def chancy(bench: Bench) -> Bench:
    """With a random augmentation."""
    bench.change(augmentation="standard", horizontal_flip=True)
    return bench


def test_equal_tunings_end_equal_whatever_ran_before(chancy: Bench, tmp_path: Path) -> None:
    first, weights = tuned(chancy, tmp_path / "first", used=1)
    again, same = tuned(chancy, tmp_path / "again", used=2)
    assert [row.loss for row in first.rows] == [row.loss for row in again.rows]
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_array_equal(one, other)
    chancy.change(seed=1)
    other_seed, _ = tuned(chancy, tmp_path / "other")
    assert abs(other_seed.rows[-1].loss - first.rows[-1].loss) > 1e-4, "chance has no part in it"


def test_a_killed_tuning_goes_on_with_its_second_epoch(chancy: Bench, tmp_path: Path) -> None:
    whole, weights = tuned(chancy, tmp_path / "whole")
    with pytest.raises(Killed):
        tuned(chancy, tmp_path / "cut", Killing(STEPS_OF_AN_EPOCH + 2))
    progress = SilentProgress()
    ended, same = tuned(chancy, tmp_path / "cut", progress, used=3)
    assert progress.stages == ["full 2/2"]
    assert [row.loss for row in ended.rows] == [row.loss for row in whole.rows]
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_array_equal(one, other)


def test_hints_draw_the_layers_that_are_named_to_the_teachers(bench: Bench, tmp_path: Path) -> None:
    def far(weight: float) -> float:
        network, teacher = networks(bench)
        normalization = Normalization((127.0,) * 3, (128.0,) * 3)
        tuning = Tuning(normalization, bench.recipe, bench.material, SilentProgress())
        subject = TuningSubject(network, teacher, hints=("block_01_bn",))
        plan = TuningPlan(6, 0.03, teacher_share=0.0, hint_weight=weight, keep="last")
        tuning.tune(subject, plan, tmp_path / str(weight))
        images = np.random.default_rng(0).normal(0, 1, (8, 64, 64, 3)).astype(np.float32)
        one, two = (
            keras.Model(n.input, n.get_layer("block_01_bn").output).predict(images, verbose=0)
            for n in (network, teacher)
        )
        return float(np.square(one - two).mean() / two.var(axis=(0, 1, 2)).mean())

    with_hints, without = far(1.0), far(0.0)
    assert with_hints < 0.7 * without


def test_a_tuning_that_does_not_help_is_undone(bench: Bench, tmp_path: Path) -> None:
    network, _ = networks(bench)
    normalization = Normalization((127.0,) * 3, (128.0,) * 3)
    progress = SilentProgress()
    tuning = Tuning(normalization, bench.recipe, bench.material, progress)
    good = tuning.tune(TuningSubject(network), TuningPlan(6, 0.02), tmp_path / "good")
    assert good.validation_top1 > 0.9
    before = network.get_weights()
    noise = np.random.default_rng(0)

    def spoil(_: int) -> None:
        for layer in spoilt[0].layers:
            arrays = layer.get_weights()
            layer.set_weights([noise.normal(0, 1, array.shape) for array in arrays])

    spoilt = [network]

    def same(subject: Any, _precision: str) -> Any:
        return subject

    subject = TuningSubject(network, before_step=spoil, copied=same)
    bad = tuning.tune(subject, TuningPlan(1, 1e-9), tmp_path / "bad")
    assert bad.rows[0].val_top1 < good.validation_top1 == bad.validation_top1
    assert any("tuning did not help" in note for note in progress.notes)
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
