"""Percentiles and the ratio's interval, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.bench.statistics import _student_t, median_ratio, percentile_ms


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


def test_rounds_of_unequal_length_weigh_alike_and_empty_ones_are_left_out() -> None:
    candidate = [[10, 10, 10, 10], [20], [], [20]]
    ratio = median_ratio(candidate, [[10, 10, 10, 10], [10], [10], [10]])
    assert ratio is not None
    assert ratio.value == pytest.approx(4 ** (1 / 3))
    # by hand: logs 0, ln 2, ln 2: mean 0.46210, deviation 0.40019, t(2) = 4.3027
    assert ratio.low == pytest.approx(np.exp(0.46210 - 4.3027 * 0.40019 / 3**0.5), rel=1e-4)
    assert ratio.high == pytest.approx(np.exp(0.46210 + 4.3027 * 0.40019 / 3**0.5), rel=1e-4)


def test_student_t_beyond_the_table() -> None:
    assert _student_t(4) == pytest.approx(2.7764)
    for degrees, published in ((11, 2.2010), (15, 2.1314), (29, 2.0452), (120, 1.9799)):
        assert _student_t(degrees) == pytest.approx(published, abs=3e-3)


@pytest.mark.parametrize("rounds", [3, 5, 10])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(rounds: int) -> None:
    """1,000 experiments: 93 to 97 % cover, and a planted error of 30 % is mostly excluded."""
    generator = np.random.default_rng(2)
    covered = wrong = 0
    for _ in range(1000):
        drift = generator.normal(1.0, 0.05, (rounds, 1))
        noise = generator.normal(1, 0.03, (2, rounds, 1))
        reference = 100_000 * drift * noise[0] * generator.normal(1, 0.03, (rounds, 20))
        candidate = 60_000 * drift * noise[1] * generator.normal(1, 0.03, (rounds, 20))
        ratio = median_ratio(candidate.tolist(), reference.tolist())
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= 0.6 <= ratio.high
        wrong += ratio.low <= 0.78 <= ratio.high
    assert 930 <= covered <= 970
    assert wrong <= 100
