"""The Verdict: its words, its numbers, and what is no gate at all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smidgen.export.errors import GateError
from smidgen.export.gate.paired import Pairs, tango_interval
from smidgen.export.gate.regression import BundleModel
from smidgen.export.gate.verdicts import JudgedImages, Limits, decide, images_needed, judge_scores
from smidgen.runtime.manifest import ClassAnswers, PairedDrop
from smidgen.runtime.schema import as_mapping


def test_a_hundred_images_cannot_prove_one_point():
    _, high = Pairs(100, 90, 90, 0, 0).interval()
    assert decide(0.0, 100 * high, 1.0) == "undecided"


def scores_for(answers: np.ndarray, classes: int = 4) -> np.ndarray:
    scores = np.full((len(answers), classes), 0.1, np.float32)
    scores[np.arange(len(answers)), answers] = 0.7
    return scores


def test_identical_candidate_passes_and_permuted_labels_fail():
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 600)
    reference = scores_for(truth)
    verdict, pairs = judge_scores(
        reference, reference.copy(), images=JudgedImages(truth), limits=Limits(1.0), engine="fake 1"
    )
    assert (verdict.verdict, verdict.drop_points, verdict.changed_answers) == ("pass", 0.0, 0)
    assert (verdict.images, verdict.truth, verdict.engine) == (600, "labels", "fake 1")
    assert pairs.lost == pairs.gained == 0
    damaged, _ = judge_scores(
        reference, np.roll(reference, 1, axis=1), images=JudgedImages(truth), limits=Limits(1.0)
    )
    assert damaged.verdict == "fail"
    assert damaged.top1_percent == 0.0
    assert damaged.drop_low_points == pytest.approx(98.7277, abs=1e-4)


def test_zeroed_candidate_fails():
    truth = np.arange(600) % 4
    zeroed = np.full((600, 4), 0.25, np.float32)
    verdict, _ = judge_scores(
        scores_for(truth), zeroed, images=JudgedImages(truth), limits=Limits(1.0)
    )
    assert verdict.verdict == "fail"
    assert verdict.drop_points == pytest.approx(75.0)


def test_few_images_are_undecided_and_the_needed_number_decides():
    truth = np.zeros(50, np.int64)
    answers = truth.copy()
    answers[:1] = 1
    verdict, pairs = judge_scores(
        scores_for(truth), scores_for(answers), images=JudgedImages(truth), limits=Limits(3.0)
    )
    assert verdict.verdict == "undecided"
    needed = images_needed(pairs, 3.0)
    assert needed is not None
    for images, decided in ((needed, True), (needed - 1, False)):
        low, high = tango_interval(images / 50, 0, images)
        assert (decide(low, high, 0.03) != "undecided") is decided


def test_images_needed_is_none_on_the_limit():
    assert images_needed(Pairs(100, 90, 89, 1, 0), 1.0) is None


def test_parity_decides_for_float_files():
    truth = np.arange(8) % 4
    reference = scores_for(truth)
    near = reference + np.float32(5e-5)
    far = reference.copy()
    far[0, 3] += np.float32(5e-4)
    good, _ = judge_scores(reference, near, images=JudgedImages(), limits=Limits(1.0, 1e-4))
    bad, _ = judge_scores(reference, far, images=JudgedImages(), limits=Limits(1.0, 1e-4))
    assert (good.verdict, good.truth) == ("pass", "reference")
    assert bad.verdict == "fail"
    assert bad.max_score_difference == pytest.approx(5e-4, rel=1e-3)


def test_a_gate_that_cannot_run_is_an_error():
    empty = np.zeros((0, 4), np.float32)
    with pytest.raises(GateError, match="no held-out images"):
        judge_scores(empty, empty, images=JudgedImages(), limits=Limits(1.0))
    one = scores_for(np.array([1]))
    with pytest.raises(GateError, match=r"shape \(1, 3\)"):
        judge_scores(one, one[:, :3], images=JudgedImages(), limits=Limits(1.0))
    with pytest.raises(GateError, match="NaN"):
        judge_scores(one, one * np.float32("nan"), images=JudgedImages(), limits=Limits(1.0))
    with pytest.raises(GateError, match="got 3 right answers: expected 2"):
        two = scores_for(np.array([1, 2]))
        judge_scores(two, two, images=JudgedImages(np.zeros(3, np.int64)), limits=Limits(1.0))
    with pytest.raises(GateError, match="got 2 class names: expected 4"):
        judge_scores(one, one, images=JudgedImages(labels=("a", "b")), limits=Limits(1.0))


def answers_with_flips() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """200 images of 4 classes; the reference has 4 wrong, the candidate 9 others and gains 1."""
    truth = np.arange(200) % 4
    before, after = truth.copy(), truth.copy()
    before[[0, 1, 2, 3]] = [1, 2, 3, 0]
    after[[0, 1, 2]] = [1, 2, 0]  # the third is wrong in another way, the fourth is gained
    after[6:42:4] = 3  # nine of class 2 are lost
    return truth, before, after


def test_sureness_is_of_what_each_model_shows():
    """After its temperature; nothing else in the verdict changes."""
    truth, before, after = answers_with_flips()
    reference, candidate = scores_for(before), scores_for(after)
    shown = np.full(200, 0.6, np.float32), np.full(200, 0.9, np.float32)
    plain, _ = judge_scores(reference, candidate, images=JudgedImages(truth), limits=Limits(1.0))
    images = JudgedImages(truth, confidences=shown)
    verdict, _ = judge_scores(reference, candidate, images=images, limits=Limits(1.0))
    assert verdict.confidence_shift_points == pytest.approx(30.0, abs=1e-4)
    assert verdict.reference_calibration_error_percent == pytest.approx(98 - 60, abs=1e-4)
    assert verdict.calibration_error_percent == pytest.approx(94 - 90, abs=1e-4)
    changed = {name for name in as_mapping(plain) if getattr(plain, name) != getattr(verdict, name)}
    assert changed == {
        "confidence_shift_points",
        "reference_calibration_error_percent",
        "calibration_error_percent",
    }


def test_a_bundle_is_as_sure_as_its_manifest_says(make_bundle):
    scores = np.array([[0.64, 0.32, 0.04]], np.float32)
    cold = BundleModel.open(make_bundle(temperature=2.0))
    assert cold.confidence(scores)[0] == pytest.approx(0.8 / (1 + math.sqrt(0.32)), abs=1e-6)
    assert BundleModel.open(make_bundle()).confidence(scores)[0] == np.float32(0.64)


def test_every_number_of_the_verdict():
    truth, before, after = answers_with_flips()
    reference, candidate = scores_for(before), scores_for(after)
    candidate[:, :] = np.where(candidate == candidate.max(axis=1, keepdims=True), 0.85, 0.05)
    images = JudgedImages(truth, ("ash", "beech", "cedar", "date palm"))
    verdict, pairs = judge_scores(reference, candidate, images=images, limits=Limits(1.0))
    assert (verdict.lost, verdict.gained, verdict.changed_answers) == (9, 1, 11)
    assert verdict.mcnemar_p == pytest.approx(2 * 11 / 1024)
    assert verdict.mcnemar_mid_p == pytest.approx((2 + 10) / 1024)
    assert (verdict.drop_points, verdict.verdict) == (pytest.approx(4.0), "fail")
    assert verdict.worst_class == ClassAnswers("cedar", 50, 49, 40)
    assert verdict.classes_compared == 4
    assert verdict.confidence_shift_points == pytest.approx(15.0, abs=1e-4)
    # one bin each: |right share - 0.7|, |right share - 0.85|
    assert verdict.reference_calibration_error_percent == pytest.approx(98 - 70, abs=1e-4)
    assert verdict.calibration_error_percent == pytest.approx(94 - 85, abs=1e-4)
    assert verdict.mean_score_difference == pytest.approx(
        np.abs(reference.astype(float) - candidate).mean()
    )
    assert (verdict.top5, verdict.distinct_images, verdict.images_to_decide) == (None, None, None)
    assert Pairs(200, 196, 188, 9, 1) == pairs
    low, high = tango_interval(9, 1, 200)
    assert (verdict.drop_low_points, verdict.drop_high_points) == (100 * low, 100 * high)


def test_ten_classes_have_a_top_five():
    truth = np.arange(100) % 10
    order = np.linspace(0.01, 0.2, 10, dtype=np.float32)  # class 9 first, class 5 fifth
    reference = np.tile(order, (100, 1))
    candidate = reference.copy()
    candidate[5, 5] = 0.0
    verdict, _ = judge_scores(reference, candidate, images=JudgedImages(truth), limits=Limits(1.0))
    low, high = tango_interval(1, 0, 100)
    assert verdict.top5 == PairedDrop(50.0, 49.0, 1.0, 100 * low, 100 * high)
    few, _ = judge_scores(
        reference[:, :9], candidate[:, :9], images=JudgedImages(truth % 9), limits=Limits(1.0)
    )
    assert few.top5 is None


def test_repeated_content_is_one_sample():
    truth, before, after = answers_with_flips()
    contents = [f"{number // 4}" for number in range(200)]
    plain, _ = judge_scores(
        scores_for(before), scores_for(after), images=JudgedImages(truth), limits=Limits(1.0)
    )
    images = JudgedImages(truth, contents=contents)
    turned, pairs = judge_scores(
        scores_for(before), scores_for(after), images=images, limits=Limits(1.0)
    )
    assert (plain.distinct_images, plain.design_effect) == (None, None)
    assert (turned.distinct_images, turned.design_effect) == (50, pairs.design_effect)
    assert turned.drop_points == plain.drop_points
    # each loss is in another picture but for one: hardly dependent
    assert turned.design_effect == pytest.approx(1.0, abs=0.2)
    copies = np.tile(truth[:50], 4), np.tile(before[:50], 4), np.tile(after[:50], 4)
    images = JudgedImages(copies[0], contents=[f"{number % 50}" for number in range(200)])
    same, _ = judge_scores(
        scores_for(copies[1]), scores_for(copies[2]), images=images, limits=Limits(1.0)
    )
    assert same.design_effect == pytest.approx(4.0)
    low, high = tango_interval(9, 1, 50)
    assert (same.drop_low_points, same.drop_high_points) == pytest.approx((100 * low, 100 * high))
    lone, _ = judge_scores(
        scores_for(before[:50]),
        scores_for(after[:50]),
        images=JudgedImages(truth[:50]),
        limits=Limits(1.0),
    )
    assert same.mcnemar_p == pytest.approx(lone.mcnemar_p)  # no information in copies
