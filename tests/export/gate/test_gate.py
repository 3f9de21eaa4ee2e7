"""The gate's numbers against published ones, its coverage, and the faults it must catch."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.errors import GateError
from smidgen.export.gate.paired import Z_95, Pairs, tango_interval
from smidgen.export.gate.verdicts import JudgedImages, Limits, decide, images_needed, judge_scores


@pytest.mark.parametrize(
    ("counts", "z", "published", "digits"),
    [
        # Fagerland, Lydersen, Laake 2014, airway hyper-responsiveness before and after transplant
        ((1, 7, 21), Z_95, (-0.517, -0.026), 3),
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.90), which takes (gained, lost)
        ((28, 25, 618), 1.6448536269514722, (-0.0148, 0.0247), 4),
    ],
)
def test_interval_equals_published_numbers(counts, z, published, digits):
    assert tuple(round(end, digits) for end in tango_interval(*counts, z)) == published
    # planted fault: the Wald interval is not that one
    lost, gained, images = counts
    rate = (lost - gained) / images
    half = z * np.sqrt(((lost + gained) / images - rate**2) / images)
    assert (round(rate - half, digits), round(rate + half, digits)) != published


def test_interval_without_discordant_pairs_is_not_empty():
    low, high = tango_interval(0, 0, 100)
    expected = Z_95**2 / (100 + Z_95**2)
    assert (low, high) == pytest.approx((-expected, expected), abs=1e-12)
    assert decide(0.0, 100 * high, 1.0) == "undecided"  # 100 images cannot prove "within 1 point"


def test_interval_at_the_ends_and_mirrored():
    low, high = tango_interval(50, 0, 50)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx((50 - Z_95**2) / (50 + Z_95**2), abs=1e-12)
    assert tango_interval(3, 11, 200) == pytest.approx(
        tuple(-end for end in reversed(tango_interval(11, 3, 200))), abs=1e-12
    )


def test_interval_covers_the_truth_95_percent_of_the_time():
    random = np.random.default_rng(5)
    lost_rate, gained_rate, images = 0.02, 0.012, 600
    counts = random.multinomial(
        images, [lost_rate, gained_rate, 1 - lost_rate - gained_rate], size=2000
    )
    ends = np.array([tango_interval(lost, gained, images) for lost, gained, _ in counts])
    truth = lost_rate - gained_rate
    covered = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert 0.935 <= covered <= 0.967
    # planted fault: intervals a fifth narrower do not reach that
    middle, half = ends.mean(axis=1), 0.4 * (ends[:, 1] - ends[:, 0])
    assert (np.abs(truth - middle) <= half).mean() < 0.935


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
    with pytest.raises(GateError, match="more discordant"):
        tango_interval(3, 3, 5)
