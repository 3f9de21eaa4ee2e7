"""Top five, calibration and the worst class, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.gate.metrics import calibration_error, is_in_top, worst_class
from smidgen.runtime.manifest import ClassAnswers


def test_the_first_five_and_ties():
    scores = np.array(
        [
            [0.3, 0.2, 0.15, 0.1, 0.09, 0.08, 0.08],  # class 4 is fifth
            [0.3, 0.2, 0.15, 0.1, 0.09, 0.08, 0.08],  # class 5 is sixth
            [0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0],  # a zero among five: not told apart
            [0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.2, 0.2, 0.2, 0.2, 0.2, 0.0, 0.0],  # a tie that fits in
        ],
        np.float32,
    )
    truth = np.array([4, 5, 2, 1, 0])
    assert is_in_top(scores, truth, 5).tolist() == [True, False, False, True, True]
    assert is_in_top(scores, truth, 1).tolist() == [False] * 5


def test_calibration_error_by_hand():
    # (8/15, 9/15]: three answers of 0.6, two right; the last bin: two of 1.0, one right
    confidence = np.array([0.6, 0.6, 0.6, 1.0, 1.0], np.float32)
    right = np.array([True, True, False, True, False])
    expected = 3 / 5 * abs(2 / 3 - 0.6) + 2 / 5 * abs(1 / 2 - 1.0)
    assert calibration_error(confidence, right) == pytest.approx(expected, abs=1e-6)
    sure = np.ones(4, np.float32)
    assert calibration_error(sure, np.ones(4, bool)) == 0.0
    assert calibration_error(sure, np.zeros(4, bool)) == 1.0
    # bins are not merged: over- and underconfidence do not cancel
    mixed = np.array([0.3, 0.9], np.float32)
    assert calibration_error(mixed, np.array([True, False])) == pytest.approx((0.7 + 0.9) / 2)


def test_calibration_error_of_calibrated_answers_is_small_and_of_shifted_ones_is_not():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1.0, 20_000).astype(np.float32)
    right = random.random(20_000) < confidence
    assert calibration_error(confidence, right) < 0.01
    assert calibration_error(confidence, random.random(20_000) < confidence - 0.1) > 0.09


def test_the_worst_class_has_images_enough():
    labels = ("ash", "beech", "cedar")
    truth = np.repeat([0, 1, 2], [40, 30, 19])
    before = np.ones(89, bool)
    after = before.copy()
    after[:2] = False  # ash: 40 -> 38, five points
    after[40:42] = False  # beech: 30 -> 28, more than six
    after[70:] = False  # cedar: all, of nineteen
    assert worst_class(truth, before, after, labels) == (ClassAnswers("beech", 30, 30, 28), 2)
    assert worst_class(truth[70:], before[70:], after[70:], labels) == (None, 0)
    # better than before is a negative drop; of equal ones the class with more images
    assert worst_class(truth, after, before, labels)[0] == ClassAnswers("ash", 40, 38, 40)
    assert worst_class(truth, before, before, labels)[0] == ClassAnswers("ash", 40, 40, 40)
