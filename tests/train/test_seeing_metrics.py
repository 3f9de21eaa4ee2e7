"""Metrics against hand-made and textbook values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smidgen.train.seeing.metrics import (
    calibration_error,
    class_metrics,
    confusion_matrix,
    cross_entropy,
    evaluation,
    orientation_errors,
    probabilities,
    reliability,
    top1,
    top_k,
    wilson_interval,
)

LOGITS = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 5.0, 0.0]], np.float32)
NAMES = ("cat", "dog", "owl")


def test_cross_entropy() -> None:
    by_hand = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert cross_entropy(LOGITS[:1], np.array([0])) == pytest.approx(by_hand, abs=1e-12)
    assert cross_entropy(LOGITS[:1], np.array([1])) == pytest.approx(by_hand + 2, abs=1e-12)
    huge = np.array([[1e4, 0.0]], np.float32)
    assert cross_entropy(huge, np.array([1])) == pytest.approx(1e4)


def test_probabilities_are_the_softmax_of_huge_logits_too() -> None:
    shares = probabilities(np.array([[1e4, 1e4 - math.log(3), -1e4], [0, 0, 0]]))
    assert shares[0] == pytest.approx([0.75, 0.25, 0.0], abs=1e-9)
    assert shares.sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-12)
    sigmoid = 1 / (1 + math.exp(-1.7))
    assert probabilities(np.array([[0.0, 1.7]]))[0, 1] == pytest.approx(sigmoid, abs=1e-12)


def test_top1_and_top_k() -> None:
    labels = np.array([0, 1, 2])
    assert top1(LOGITS, np.array([0, 2, 2])) == pytest.approx(2 / 3)
    assert top_k(LOGITS, labels) == pytest.approx((1 / 3, 2 / 3, 1.0))
    assert top_k(LOGITS, labels)[0] == pytest.approx(top1(LOGITS, labels))
    assert len(top_k(np.zeros((2, 9)), np.array([0, 8]))) == 5
    # all equal: argmax answers 0, so label 2 is the third best, not the first
    assert top_k(np.zeros((1, 4)), np.array([2])) == (0.0, 0.0, 1.0, 1.0)


def test_wilson_interval_agrees_with_newcombe_1998() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    wald = 15 / 148 - 1.96 * math.sqrt(15 / 148 * (1 - 15 / 148) / 148)
    assert wald != pytest.approx(0.0624, abs=5e-5), "the tolerance cannot tell Wald from Wilson"


def test_precision_recall_and_f1_by_hand() -> None:
    """Rows are the truth: of 10 cats 8 are found, and 4 dogs are called cats."""
    confusion = np.array([[8, 2, 0], [4, 6, 0], [0, 0, 0]])
    cat, dog, owl = class_metrics(confusion, NAMES)
    assert (cat.label, cat.images, dog.images, owl.images) == ("cat", 10, 10, 0)
    assert cat.precision_percent == pytest.approx(100 * 8 / 12)
    assert cat.recall_percent == pytest.approx(80.0)
    assert cat.f1_percent == pytest.approx(100 * 2 * (2 / 3 * 0.8) / (2 / 3 + 0.8))
    assert (cat.recall_low_percent, cat.recall_high_percent) == pytest.approx(
        tuple(100 * x for x in wilson_interval(8, 10))
    )
    assert dog.precision_percent == pytest.approx(75.0)
    assert (owl.precision_percent, owl.recall_percent, owl.f1_percent) == (None, None, None)
    swapped = class_metrics(confusion.T, NAMES)
    assert swapped[0].recall_percent == pytest.approx(cat.precision_percent)
    assert swapped[0].recall_percent != pytest.approx(cat.recall_percent)


def test_a_class_that_is_never_answered_has_precision_zero() -> None:
    cat, dog = class_metrics(np.array([[3, 0], [2, 0]]), NAMES[:2])
    assert (dog.precision_percent, dog.recall_percent, dog.f1_percent) == (0.0, 0.0, 0.0)
    assert cat.precision_percent == pytest.approx(60.0)


def test_calibration_error_of_a_network_that_says_90_percent_and_is_right_in_60() -> None:
    logits = np.tile([math.log(9.0), 0.0], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    bins = reliability(logits, labels)
    assert len(bins) == 15
    assert [item.images for item in bins] == [0] * 13 + [10, 0]  # 0.9 is in (13/15, 14/15]
    assert (bins[13].confidence, bins[13].accuracy) == pytest.approx((0.9, 0.6))
    assert calibration_error(bins) == pytest.approx(0.3, abs=1e-12)
    assert calibration_error(reliability(logits, labels, bins=1)) == pytest.approx(0.3, abs=1e-12)


def test_calibration_error_is_weighted_by_images_and_does_not_cancel() -> None:
    """3 images at 0.9, all right (gap .1); 1 image at 0.6, wrong (gap .6)."""
    logits = np.log([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    bins = reliability(logits, np.array([0, 0, 0, 1]))
    assert calibration_error(bins) == pytest.approx((3 * 0.1 + 0.6) / 4, abs=1e-12)
    one = calibration_error(reliability(logits, np.array([0, 0, 0, 1]), bins=1))
    assert one == pytest.approx(abs(0.825 - 0.75), abs=1e-12)
    assert one != pytest.approx(0.225, abs=1e-12), "the tolerance cannot tell 15 bins from 1"


def test_a_probability_on_an_edge_belongs_to_the_bin_below() -> None:
    bins = reliability(np.array([[0.0, 0.0]]), np.array([0]), bins=2)
    assert [item.images for item in bins] == [1, 0]


def test_half_turns_are_counted_apart() -> None:
    confusion = np.array([[90, 1, 8, 1], [0, 98, 0, 2], [5, 0, 95, 0], [0, 3, 1, 96]])
    errors = orientation_errors(confusion)
    assert (errors.half_turn_0_180, errors.half_turn_90_270, errors.quarter_turn) == (13, 5, 3)
    assert errors.half_turn_0_180_percent == pytest.approx(3.25)
    shares = (
        errors.half_turn_0_180_percent, errors.half_turn_90_270_percent, errors.quarter_turn_percent
    )  # fmt: skip
    assert 100 - sum(shares) == pytest.approx(100 * confusion.trace() / 400)


def test_evaluation_counts_every_answer() -> None:
    result = evaluation(LOGITS, np.array([0, 2, 2]), NAMES)
    assert (result.images, result.top1_percent) == (3, pytest.approx(200 / 3))
    assert result.confusion == ((1, 0, 0), (0, 0, 0), (0, 1, 1))
    assert result.top1_low_percent < result.top1_percent < result.top1_high_percent
    assert result.top_k_percent == pytest.approx((200 / 3, 200 / 3, 100.0))
    assert result.labels == NAMES
    assert result.loss == pytest.approx(cross_entropy(LOGITS, np.array([0, 2, 2])))
    # over cat (recall 1) and owl (recall 1/2); no image is a dog
    assert result.macro_recall_percent == pytest.approx(75.0)
    assert result.macro_precision_percent == pytest.approx(100.0)
    assert result.macro_f1_percent == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert result.orientation is None


def test_it_agrees_with_counting_one_by_one() -> None:
    random = np.random.default_rng(7)
    logits = random.normal(size=(500, 6)).astype(np.float32)
    labels = random.integers(0, 6, 500)
    result = evaluation(logits, labels, [str(i) for i in range(6)])
    confusion = np.zeros((6, 6), int)
    for row, label in zip(logits, labels, strict=True):
        confusion[label, int(np.argmax(row))] += 1
    assert np.array_equal(result.confusion, confusion)
    assert np.array_equal(confusion_matrix(logits.argmax(axis=1), labels, 6), confusion)
    order = np.argsort(-logits, axis=1)
    for k in range(1, 6):
        hits = sum(label in row[:k] for row, label in zip(order, labels, strict=True))
        assert result.top_k_percent[k - 1] == pytest.approx(hits / 5)
    assert sum(item.images for item in result.reliability) == 500


def test_orientation_has_its_line() -> None:
    labels = np.array([0, 1, 2, 3])
    result = evaluation(
        np.eye(4)[[2, 1, 2, 3]], labels, ["0", "90", "180", "270"], is_orientation=True
    )
    assert result.orientation is not None
    assert result.orientation.half_turn_0_180_percent == pytest.approx(25.0)
