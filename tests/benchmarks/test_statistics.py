"""Percentiles and the ratio's interval, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.bench.statistics import median_ratio, percentile_ms


def test_percentiles_are_over_the_pooled_samples_in_ms() -> None:
    rounds = [(1_000_000, 3_000_000), (2_000_000,), (4_000_000, 5_000_000)]
    assert percentile_ms(rounds, 50) == pytest.approx(3.0)
    assert percentile_ms(rounds, 90) == pytest.approx(4.6)  # linear between the 4th and the 5th
    assert percentile_ms([(), ()], 50) is None


def test_a_clear_ratio_has_an_interval_that_excludes_one() -> None:
    generator = np.random.default_rng(1)
    reference = [generator.normal(10e6, 0.2e6, 20).astype(int).tolist() for _ in range(7)]
    candidate = [[value // 2 for value in block] for block in reference]
    ratio = median_ratio(candidate, reference)
    assert ratio is not None
    assert ratio.value == pytest.approx(0.5, abs=1e-6)
    assert ratio.low == pytest.approx(0.5, abs=1e-6)
    assert ratio.high == pytest.approx(0.5, abs=1e-6)
    assert not ratio.is_tie


def test_a_slow_round_that_hits_both_cancels_and_one_that_hits_one_side_does_not() -> None:
    reference = [[100] * 5, [100] * 5, [300] * 5, [100] * 5, [100] * 5]
    same_drift = [[90] * 5, [90] * 5, [270] * 5, [90] * 5, [90] * 5]
    ratio = median_ratio(same_drift, reference)
    assert ratio is not None
    assert ratio.low == pytest.approx(0.9)
    assert ratio.high == pytest.approx(0.9)
    one_sided = [[90] * 5, [270] * 5, [90] * 5, [270] * 5, [90] * 5]
    ratio = median_ratio(one_sided, reference)
    assert ratio is not None
    assert ratio.is_tie


def test_too_few_rounds_give_no_interval() -> None:
    ratio = median_ratio([[50], [50]], [[100], [100]])
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == (0.5, None, None)
    assert not ratio.is_tie
    assert median_ratio([], [[100]]) is None


def test_rounds_of_unequal_length_weigh_by_their_samples() -> None:
    candidate = [[10, 10, 10, 10], [20], [20]]
    ratio = median_ratio(candidate, [[10, 10, 10, 10], [10], [10]])
    assert ratio is not None
    assert ratio.value == 1.0
    assert ratio.high == 2.0  # a resample without the first round holds only 20


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    """200 experiments of 10 noisy rounds: 85 % or more cover, and a planted 10 % error does not."""
    generator = np.random.default_rng(2)
    covered = wrong = 0
    for _ in range(200):
        drift = generator.normal(1.0, 0.05, (10, 1))
        reference = (100_000 * drift * generator.normal(1, 0.03, (10, 20))).tolist()
        candidate = (60_000 * drift * generator.normal(1, 0.03, (10, 20))).tolist()
        ratio = median_ratio(candidate, reference)
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= 0.6 <= ratio.high
        wrong += ratio.low <= 0.66 <= ratio.high
    assert covered >= 170
    assert wrong <= 20
