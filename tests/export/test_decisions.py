"""Temperature and threshold: by hand, by brute force, and where a fault was planted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smidgen.export.decisions import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    best_bound,
    choose_threshold,
    faultless_answers,
    fit_temperature,
    lower_bound,
    negative_log_likelihood,
    proves,
)
from smidgen.export.gate.metrics import calibration_error
from smidgen.runtime.decisions import calibrated


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def planted(count: int, factor: float, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model whose labels are drawn from its own softmax; then logits times factor."""
    random = np.random.default_rng(5)
    logits = random.normal(0, 2, (count, classes))
    chances = softmax(logits).astype(np.float64).cumsum(axis=1)
    truth = (chances / chances[:, -1:] > random.random((count, 1))).argmax(axis=1)
    return softmax(factor * logits), truth


def steps(scores: np.ndarray) -> np.ndarray:
    """As the uint8 output of an int8 file."""
    return (np.minimum(np.round(scores * 256), 255) / 256).astype(np.float32)


def test_the_likelihood_by_hand():
    # logits (2, 0) twice and (0, 1): after T = 2 they are (1, 0), (1, 0), (0, 0.5)
    scores = softmax(np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    truth = np.array([0, 1, 1])
    by_hand = 2 * math.log(1 + math.e) - 1 + math.log(1 + math.exp(-0.5))
    assert negative_log_likelihood(scores, truth, 2.0) == pytest.approx(by_hand, abs=1e-6)


def test_the_temperature_by_hand():
    # Every logit difference is 2 and 4 of 5 are right: without a prior 1 / (1 + exp(-2 / T)) = 4/5,
    # so T = 2 / ln 4 = 1.4427.
    scores = np.repeat(softmax(np.array([[2.0, 0.0]])), 5000, axis=0)
    truth = (np.arange(5000) % 5 == 0).astype(np.int64)
    assert fit_temperature(scores, truth) == pytest.approx(2 / math.log(4), abs=1e-3)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_it_takes_back_what_logits_were_multiplied_with(factor):
    scores, truth = planted(20_000, factor)
    temperature = fit_temperature(scores, truth)
    assert temperature == pytest.approx(factor, rel=0.03)
    right = scores.argmax(axis=1) == truth
    before = calibration_error(scores.max(axis=1), right)
    after = calibration_error(calibrated(scores, temperature).max(axis=1), right)
    assert after < 0.01
    if factor != 1.0:
        assert before > 0.1  # the planted fault is seen


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("floor", [0.0, 1 / 512 / 10])
def test_no_other_temperature_is_more_likely(factor, floor):
    """A search over what the device computes, by brute force, ends at the same place."""
    scores, truth = planted(300, factor)
    scores = steps(scores) if floor else scores
    tries = np.exp(np.linspace(math.log(0.3), math.log(3), 601))

    def cost(temperature: float) -> float:
        own = calibrated(scores, temperature, floor)[np.arange(len(truth)), truth]
        return (
            -float(np.log(np.maximum(own.astype(np.float64), 1e-300)).sum())
            + math.log(temperature) ** 2 / 2
        )

    best = tries[int(np.argmin([cost(float(temperature)) for temperature in tries]))]
    assert fit_temperature(scores, truth, floor) == pytest.approx(best, rel=0.004)


def test_it_stays_within_sane_limits():
    sure = np.array([[0.999999, 0.000001]] * 100, np.float32)
    assert fit_temperature(sure, np.ones(100, np.int64)) == HIGHEST_TEMPERATURE
    unsure = np.array([[0.51, 0.49]] * 5000, np.float32)
    assert fit_temperature(unsure, np.zeros(5000, np.int64)) == LOWEST_TEMPERATURE
    few = np.array([[0.95, 0.05]] * 50, np.float32)  # all right: not a reason to be certain
    assert 0.4 < fit_temperature(few, np.zeros(50, np.int64)) < 0.6


@pytest.mark.parametrize("classes", [10, 1000])
def test_zeros_of_integer_scores_do_not_blow_up(classes):
    """Also where the right class has score 0, and where 1,000 classes have."""
    random = np.random.default_rng(1)
    logits = random.normal(0, 1.5, (600, classes))
    logits[np.arange(600), random.integers(0, classes, 600)] += 6 if classes == 10 else 9
    chances = softmax(logits).astype(np.float64).cumsum(axis=1)
    truth = (chances / chances[:, -1:] > random.random((600, 1))).argmax(axis=1)
    scores = steps(softmax(2 * logits))
    assert (scores[np.arange(600), truth] == 0).sum() > 3
    floor = 1 / 512 / classes
    temperature = fit_temperature(scores, truth, floor)
    assert 1.2 < temperature < 2.5
    right = scores.argmax(axis=1) == truth
    before = calibration_error(scores.max(axis=1), right)
    after = calibration_error(calibrated(scores, temperature, floor).max(axis=1), right)
    assert after < 0.75 * before
    # the fault that the floor keeps out: a zero taken for (nearly) zero drives T to its limit
    assert fit_temperature(scores, truth, 0.0) > 2.5


@pytest.mark.parametrize(
    ("right", "answers", "bound"),
    [  # scipy.stats.beta.ppf(0.05, right, answers - right + 1)
        (59, 59, 0.950492390),
        (58, 59, 0.922102078),
        (45, 50, 0.801166997),
        (990, 1000, 0.983096825),
        (1, 1, 0.05),
        (0, 5, 0.0),
    ],
)
def test_the_lower_bound_is_that_of_clopper_and_pearson(right, answers, bound):
    assert lower_bound(right, answers) == pytest.approx(bound, abs=1e-6)


def test_what_proves_a_share():
    assert faultless_answers(0.95) == 59
    assert proves(59, 59, 0.95)
    assert not proves(58, 58, 0.95)
    assert not proves(0, 0, 0.95)


def test_the_threshold_by_hand():
    """60 right answers at 0.9, one wrong at 0.6, 20 right at 0.5."""
    confidence = np.array([0.9] * 60 + [0.6] + [0.5] * 20, np.float32)
    right = np.array([True] * 60 + [False] + [True] * 20)
    contents = [str(number) for number in range(81)]
    everything = choose_threshold(confidence, right, contents, 0.90)
    assert everything is not None
    assert (everything.abstain_below, everything.coverage) == (0.0, 1.0)
    assert everything.accuracy == pytest.approx(80 / 81)
    strict = choose_threshold(confidence, right, contents, 0.95)  # 60 of 60 prove it, 60 of 61 not
    assert strict is not None
    assert strict.abstain_below == pytest.approx((0.9 + 0.6) / 2, abs=1e-6)  # half way
    assert (strict.coverage, strict.accuracy) == (60 / 81, 1.0)
    assert strict.bound == pytest.approx(0.05 ** (1 / 60), abs=1e-6)
    assert choose_threshold(confidence, right, contents, 0.96) is None
    assert best_bound(confidence, right, contents) == pytest.approx(0.05 ** (1 / 60), abs=1e-6)


@pytest.mark.parametrize("lower", [0.75, np.nextafter(np.float32(0.75), np.float32(0))])
def test_equal_scores_stay_together(lower):
    """A wrong answer with the score of right ones, to rounding, cannot be told from them."""
    confidence = np.full(60, 0.75, np.float32)
    confidence[59] = lower
    right = np.array([True] * 59 + [False])
    contents = [str(number) for number in range(60)]
    assert choose_threshold(confidence, right, contents, 0.95) is None
    found = choose_threshold(confidence, right, contents, 0.90)
    assert found is not None
    assert found.abstain_below == 0.0


def test_turns_of_one_picture_count_as_one():
    confidence = np.full(80, 0.75, np.float32)
    right = np.ones(80, bool)
    assert choose_threshold(confidence, right, [str(n) for n in range(80)], 0.95) is not None
    assert choose_threshold(confidence, right, [str(n // 4) for n in range(80)], 0.95) is None
