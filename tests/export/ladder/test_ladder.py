"""The ladder on made-up costs: which remedy comes next, who wins, what is advised."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from smidgen.export.errors import ConversionError
from smidgen.export.ladder.climb import FakeStopwatch, Ladder, advise, describe
from smidgen.export.ladder.rungs import Abilities, Limits, Rung, Tried, next_rung, pareto, winner
from smidgen.export.recipe import ChannelsRecipe, ExportPlan, ExportRecipe
from smidgen.export.result import ExportedBundle, ExportResult, Failure
from smidgen.runtime.manifest import Verdict
from smidgen.train.progress import SilentProgress

BASE = ExportPlan(export=ExportRecipe(max_drop=0.5))
RUN = Abilities(can_tune=True, formats=("tflite",))
PRETRAINED = Abilities(can_tune=False, formats=("tflite",))


def tried(rung, size=1000, ms=10.0, word="pass", drop=0.0):
    return Tried(rung, "tflite", Path(f"{rung.name}.tflite"), size, ms, word, drop, 1.0)


def rung_after(*items, limits, abilities=RUN):
    return next_rung(BASE, items, limits, abilities)


def test_it_starts_with_quantization_and_ends_where_a_file_fits():
    limits = Limits(max_bytes=1000)
    first = rung_after(limits=limits)
    assert (first.name, first.plan.export.schemes) == ("int8", ("int8",))
    assert rung_after(tried(first), limits=limits) is None


def test_too_big_is_pruned_as_deep_as_the_measurement_says_then_deeper():
    limits = Limits(max_bytes=500)
    first = rung_after(limits=limits)
    second = rung_after(tried(first), limits=limits)
    assert second.name == "channels-47-int8"  # 0.95 * 500 / 1000, rounded
    assert second.plan.channels.keep == 0.47
    third = rung_after(tried(first), tried(second, size=600), limits=limits)
    assert third.plan.channels.keep == pytest.approx(0.37)  # 0.47 * 0.95 * 500 / 600
    least = rung_after(tried(first), tried(second, size=501), limits=limits)
    assert least.plan.channels.keep == pytest.approx(0.4)  # never less than 15 % deeper


def test_the_slower_limit_decides_how_deep():
    limits = Limits(max_bytes=900, max_ms=4.0)
    first = rung_after(limits=limits)
    second = rung_after(tried(first, size=1000, ms=10.0), limits=limits)
    assert second.plan.channels.keep == 0.38


def test_lost_accuracy_is_rescued_from_the_cheapest_up():
    limits, seen, names = Limits(max_bytes=1000, max_ms=20), [], []
    while (rung := next_rung(BASE, seen, limits, RUN)) is not None:
        names.append(rung.name)
        seen.append(tried(rung, word="fail", drop=5.0 - 0.1 * len(seen)))
        assert len(names) < 20
    assert names == ["int8", "int8-min-max", "int8-min-max-mixed", "float16", "int8-qat"]
    assert seen[2].rung.plan.quantization.mixed == 3
    assert (seen[4].rung.plan.qat.epochs, seen[4].rung.plan.quantization.mixed) == (2, 0)


def test_a_pruned_file_that_lost_too_much_is_rescued_and_tuned_longer():
    limits = Limits(max_bytes=500)
    seen = [tried(rung_after(limits=limits))]
    names = []
    while (rung := next_rung(BASE, seen, limits, RUN)) is not None:
        names.append(rung.name)
        seen.append(tried(rung, size=490, word="fail", drop=3.0))
        assert len(names) < 20
    assert names == [
        "channels-47-int8", "channels-47-int8-min-max", "channels-47-int8-mixed",
        "channels-47-float16", "channels-47-int8-qat", "channels-47-2x-int8",
    ]  # fmt: skip
    assert seen[-1].rung.plan.channels.epochs == 2 * ChannelsRecipe().epochs


def test_without_training_images_nothing_is_tuned():
    limits = Limits(max_bytes=500)
    first = rung_after(limits=limits, abilities=PRETRAINED)
    assert rung_after(tried(first), limits=limits, abilities=PRETRAINED) is None
    advice = advise([tried(first)], limits, PRETRAINED)
    assert any("--image-size" in line for line in advice)
    assert any("without training images" in line for line in advice)


def test_undecided_fits_only_where_it_may():
    limits = Limits(max_bytes=1000, undecided_fits=False)
    item = tried(Rung("int8", BASE, ""), word="undecided", drop=0.2)
    assert not item.fits(limits)
    assert item.fits(replace(limits, undecided_fits=True))
    assert any("too few" in line for line in advise([item], limits, RUN))


def test_not_measured_is_not_within_a_limit_of_time():
    item = dataclasses.replace(tried(Rung("int8", BASE, "")), milliseconds=None)
    assert not item.fits(Limits(max_ms=10))
    assert item.fits(Limits(max_bytes=1000))
    assert "not measured" in describe(item, Limits(max_ms=10))


def test_passed_before_undecided_then_the_smallest_wins():
    a = tried(Rung("a", BASE, ""), size=900)
    b = tried(Rung("b", BASE, ""), size=800)
    c = tried(Rung("c", BASE, ""), size=100, word="undecided")
    d = tried(Rung("d", BASE, ""), size=50, word="fail", drop=9.0)
    assert winner([a, b, c, d], Limits(max_bytes=1000)) is b
    assert winner([d], Limits(max_bytes=1000)) is None


def test_pareto_keeps_what_no_other_beats():
    small = tried(Rung("small", BASE, ""), size=500, ms=9, word="fail", drop=2.0)
    fast = tried(Rung("fast", BASE, ""), size=900, ms=3)
    beaten = tried(Rung("beaten", BASE, ""), size=950, ms=4)
    names = [item.rung.name for item in pareto([fast, beaten, small], Limits())]
    assert names == ["small", "fast"]


class Maker:
    """Makes files whose size follows ``keep``; int8 fails above it where ``bad`` names a rung."""

    def __init__(self, bad=(), broken=()):
        self.bad, self.broken, self.made = bad, broken, []

    def __call__(self, plan, folder):
        self.made.append(folder.name)
        if folder.name in self.broken:
            failure = Failure("tflite", "int8", "the converter failed")
            return ExportResult(folder, (), (failure,))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "toy-int8.tflite"
        path.write_bytes(bytes(int(1000 * plan.channels.keep)))
        word = "fail" if folder.name in self.bad else "pass"
        verdict = Verdict(word, 400, 90.0, 89.9, 0.1, -0.1, 0.3, 0.5, 2, 0.01, 0.1)
        bundle = ExportedBundle(
            path.name, "tflite", "int8", word == "pass", verdict, path.stat().st_size, 100,
            "0" * 64, "key", {}, {}, str(folder),
        )  # fmt: skip
        return ExportResult(folder, (bundle,))


def climb(maker, folder, limits, abilities=RUN):
    progress = SilentProgress()
    ladder = Ladder(limits, abilities, maker, FakeStopwatch(10_000.0), progress)
    return ladder.climb(BASE, folder, "toy"), progress


def test_a_climb_makes_measures_and_publishes_the_winner(tmp_path):
    result, progress = climb(Maker(), tmp_path, Limits(max_ms=5.0))
    assert [item.rung.name for item in result.tried] == ["int8", "channels-47-int8"]
    assert [item.milliseconds for item in result.tried] == [10.0, 4.7]
    assert result.final == tmp_path / "toy-best.tflite"
    assert result.final.stat().st_size == 470
    rows = json.loads((tmp_path / "ladder.json").read_text())["tried"]
    assert [row["fits"] for row in rows] == [False, True]
    assert any("does not fit" in note for note in progress.notes)


def test_where_nothing_fits_it_says_what_to_do_and_publishes_nothing(tmp_path):
    bad = ("channels-47-int8",)
    result, _ = climb(Maker(broken=("int8",)), tmp_path, Limits(max_ms=5.0), PRETRAINED)
    assert (result.best, result.final) == (None, None)
    assert "the converter failed" in result.advice[0]
    result, _ = climb(Maker(bad=bad), tmp_path, Limits(max_ms=5.0))
    assert result.best is not None
    assert result.best.rung.name == "channels-47-int8-min-max"


def test_a_maker_that_raises_is_a_rung_that_failed(tmp_path):
    def refuse(plan, folder):  # noqa: ARG001
        raise ConversionError("no such operator")

    result, _ = climb(refuse, tmp_path, Limits(max_ms=5.0))
    assert [item.reason for item in result.tried] == ["no such operator"]
