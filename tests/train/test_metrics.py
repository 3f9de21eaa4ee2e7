"""Metrics against hand-made and textbook values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smidgen.train.metrics import cross_entropy, evaluation, top1, wilson_interval

LOGITS = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 5.0, 0.0]], np.float32)


def test_cross_entropy() -> None:
    by_hand = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert cross_entropy(LOGITS[:1], np.array([0])) == pytest.approx(by_hand, abs=1e-12)
    assert cross_entropy(LOGITS[:1], np.array([1])) == pytest.approx(by_hand + 2, abs=1e-12)
    huge = np.array([[1e4, 0.0]], np.float32)
    assert cross_entropy(huge, np.array([1])) == pytest.approx(1e4)


def test_top1() -> None:
    assert top1(LOGITS, np.array([0, 2, 2])) == pytest.approx(2 / 3)


def test_wilson_interval_agrees_with_newcombe_1998() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    wald = 15 / 148 - 1.96 * math.sqrt(15 / 148 * (1 - 15 / 148) / 148)
    assert wald != pytest.approx(0.0624, abs=5e-5), "the tolerance cannot tell Wald from Wilson"


def test_evaluation_counts_every_answer() -> None:
    result = evaluation(LOGITS, np.array([0, 2, 2]))
    assert (result.images, result.top1_percent) == (3, pytest.approx(200 / 3))
    assert result.confusion == ((1, 0, 0), (0, 0, 0), (0, 1, 1))
    assert result.top1_low_percent < result.top1_percent < result.top1_high_percent
