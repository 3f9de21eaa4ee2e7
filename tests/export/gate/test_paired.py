"""Intervals and p-values of pairs: published numbers, hand counts, coverage, and what breaks it."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest

from smidgen.export.errors import GateError
from smidgen.export.gate.paired import (
    Z_95,
    Pairs,
    count_pairs,
    design_effect,
    mcnemar,
    tango_interval,
)


@pytest.mark.parametrize(
    ("counts", "z", "published", "digits"),
    [
        # Tango 1998, section 6.2, sleeping difficulties of marijuana users and of matched controls
        ((9, 3, 32), Z_95, (-0.027, 0.390), 3),
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


def test_interval_at_the_ends_and_mirrored():
    low, high = tango_interval(50, 0, 50)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx((50 - Z_95**2) / (50 + Z_95**2), abs=1e-12)
    assert tango_interval(3, 11, 200) == pytest.approx(
        tuple(-end for end in reversed(tango_interval(11, 3, 200))), abs=1e-12
    )
    with pytest.raises(GateError, match="more discordant"):
        tango_interval(3, 3, 5)


interval = lru_cache(maxsize=None)(tango_interval)


def exact_coverage(images: int, lost_rate: float, gained_rate: float) -> float:
    """Over all outcomes: how often the interval holds the true drop."""
    logs = np.log([lost_rate, gained_rate, 1 - lost_rate - gained_rate])
    truth, total, covered = lost_rate - gained_rate, 0.0, 0.0
    most = int(images * (lost_rate + gained_rate) * 3) + 12
    for lost, gained in itertools.product(range(most), repeat=2):
        counts = np.array([lost, gained, images - lost - gained])
        ways = math.lgamma(images + 1) - sum(math.lgamma(count + 1) for count in counts)
        chance = math.exp(ways + float(counts @ logs))
        if chance > 1e-9:
            low, high = interval(lost, gained, images)
            total, covered = total + chance, covered + chance * (low <= truth <= high)
    assert total > 0.9999
    return covered


# Images, share of discordant pairs, share of these that are losses.
FEW = [(372, 0.03, 0.5), (372, 0.03, 0.7), (1000, 0.01, 0.5), (1000, 0.01, 0.7)]
ENOUGH = [
    (372, 0.05, 0.5), (372, 0.05, 0.7), (1000, 0.02, 0.5), (1000, 0.02, 0.7), (1000, 0.05, 0.7),
    (5000, 0.005, 0.5), (5000, 0.01, 0.7), (5000, 0.05, 0.7),
]  # fmt: skip


@pytest.mark.parametrize("setting", ENOUGH)
def test_coverage_by_simulation_is_94_to_96_percent(setting):
    """2,000 draws each, whose own standard error is 0.5 points: for those in the middle alone."""
    images, rate, share = setting
    random = np.random.default_rng(1)
    lost_rate, gained_rate = rate * share, rate * (1 - share)
    counts = random.multinomial(images, [lost_rate, gained_rate, 1 - rate], size=2000)
    ends = np.array([interval(int(lost), int(gained), images) for lost, gained, _ in counts])
    truth = lost_rate - gained_rate
    covered = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert 0.94 <= covered <= 0.96
    # planted fault: intervals a sixth narrower do not reach that
    middle, half = ends.mean(axis=1), (ends[:, 1] - ends[:, 0]) / 2
    assert (np.abs(truth - middle) <= half * 5 / 6).mean() < 0.94


@pytest.mark.parametrize("setting", [*FEW, *ENOUGH[:4]])
def test_coverage_over_all_outcomes_is_94_to_96_percent(setting):
    images, rate, share = setting
    assert 0.94 <= exact_coverage(images, rate * share, rate * (1 - share)) <= 0.96


@pytest.mark.parametrize(("rate", "low", "high"), [(0.005, 0.985, 0.995), (0.01, 0.96, 0.98)])
def test_with_a_handful_of_discordant_pairs_it_is_conservative(rate, low, high):
    """372 images, 1.9 and 3.7 expected: too wide rather than too narrow."""
    for share in (0.5, 0.7):
        assert low <= exact_coverage(372, rate * share, rate * (1 - share)) <= high


def outcomes(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images the reference, and which the candidate, has right."""
    counts = (both, lost, gained, neither)
    before = np.repeat([True, True, False, False], counts)
    after = np.repeat([True, False, True, False], counts)
    return before, after


def test_mcnemar_equals_published_and_hand_counted_numbers():
    # Fagerland, Lydersen, Laake 2013: 1 and 7 of 21; by hand 2 (1 + 8) / 256, less 8 / 256
    test = mcnemar(*outcomes(1, 1, 7, 12))
    assert (test.exact, test.mid_p) == pytest.approx((18 / 256, 10 / 256), rel=1e-9)
    # 5 lost, none gained: 2 / 32, and half of it
    test = mcnemar(*outcomes(30, 5, 0, 0))
    assert (test.exact, test.mid_p) == pytest.approx((1 / 16, 1 / 32), rel=1e-9)
    # 2 and 2: no outcome is less extreme; mid-p leaves out half of the 6 / 16
    test = mcnemar(*outcomes(0, 2, 2, 0))
    assert (test.exact, test.mid_p) == pytest.approx((1.0, 13 / 16), rel=1e-9)
    nothing = mcnemar(*outcomes(9, 0, 0, 3))
    assert (nothing.exact, nothing.mid_p) == (1.0, 1.0)


def test_mcnemar_of_many_pairs_equals_the_sum_of_whole_numbers():
    lost, gained = 260, 200
    ways = sum(math.comb(460, heads) for heads in range(gained + 1))
    test = mcnemar(*outcomes(100, lost, gained, 5))
    assert test.exact == pytest.approx(2 * ways / 2**460, rel=1e-9)
    # planted fault: the chi-square approximation is not that
    approximate = math.erfc(math.sqrt((lost - gained) ** 2 / (lost + gained) / 2))
    assert test.exact != pytest.approx(approximate, rel=1e-2)


def test_mcnemar_rejects_equal_models_in_at_most_5_percent_of_the_draws():
    random = np.random.default_rng(2)
    lost = random.binomial(40, 0.5, size=2000)
    exact, mid_p = np.array(
        [(test.exact, test.mid_p) for test in (mcnemar(*outcomes(9, k, 40 - k, 0)) for k in lost)]
    ).T
    assert (exact <= 0.05).mean() <= 0.05
    assert (exact <= 0.05).mean() <= (mid_p <= 0.05).mean() <= 0.06


def test_clusters_of_one_change_nothing():
    before, after = outcomes(40, 6, 3, 2)
    names = [f"{number:064}" for number in range(51)]
    assert count_pairs(before, after, names) == count_pairs(before, after)
    assert mcnemar(before, after, names) == mcnemar(before, after)


def test_design_effect_counted_by_hand():
    # Four pictures, two answers each: lost (2, 1, 0, 0). Drop 3/8; residuals 5/4, 1/4, -3/4, -3/4;
    # their squares add up to 11/4, times 4/3; independent 3 - 8 (3/8)^2 = 15/8.
    before = np.ones(8, bool)
    after = np.array([0, 0, 0, 1, 1, 1, 1, 1], bool)
    names = list("aabbccdd")
    assert design_effect(before, after, names) == pytest.approx((11 / 4 * 4 / 3) / (15 / 8))
    pairs = count_pairs(before, after, names)
    share = pairs.design_effect
    assert pairs.interval() == tango_interval(3 / share, 0, 8 / share)


def test_design_effect_stays_between_independent_and_all_alike():
    names = [name for name in "abcdefgh" for _ in range(4)]
    before = np.ones(32, bool)
    copies = np.repeat([True, False, True, True, True, True, True, True], 4)
    assert design_effect(before, copies, names) == pytest.approx(4.0)  # 4.57 of 8 clusters
    spread = ~(np.arange(32) % 4 == 0)
    assert design_effect(before, spread, names) == 1.0  # each loses one: less than by chance
    assert design_effect(before, before, names) == 4.0  # nothing is known
    assert design_effect(before, copies, ["a"] * 32) == 32.0
    uneven = ["a", *["b"] * 3]
    assert design_effect(before[:4], before[:4], uneven) == pytest.approx((1 + 9) / 4)


def test_clustered_mcnemar_equals_all_sign_flips():
    random = np.random.default_rng(3)
    before, after = random.random(24) < 0.6, random.random(24) < 0.4
    names = [f"picture {number % 8}" for number in range(24)]
    nets = [
        sum(int(b) - int(a) for b, a, name in zip(before, after, names) if name == wanted)
        for wanted in sorted(set(names))
    ]
    sums = [
        abs(sum(sign * net for sign, net in zip(signs, nets)))
        for signs in itertools.product((-1, 1), repeat=8)
    ]
    observed = abs(sum(nets))
    exact = sum(value >= observed for value in sums) / 256
    test = mcnemar(before, after, names)
    assert test.exact == pytest.approx(exact, rel=1e-9)
    assert test.mid_p == pytest.approx(
        exact - sum(value == observed for value in sums) / 512, rel=1e-9
    )
    assert test != mcnemar(before, after)


# Pictures, share of discordant answers, of losses among these, of pictures whose turns go alike.
TURNED = [
    (372, 0.02, 0.5, 0.0), (372, 0.05, 0.7, 0.5), (372, 0.05, 0.5, 0.9), (1000, 0.01, 0.7, 0.5),
    (1000, 0.02, 0.5, 0.5), (1000, 0.05, 0.7, 0.9),
]  # fmt: skip


def turned_answers(
    random: np.random.Generator, setting: tuple[int, float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Answers on four turns of each picture, ``(pictures, 4) bool``, of reference and candidate."""
    pictures, rate, share, alike = setting
    chance = random.random((pictures, 4))
    chance = np.where(random.random((pictures, 1)) < alike, chance[:, :1], chance)
    lost, gained = chance < rate * share, (chance >= rate * share) & (chance < rate)
    right = random.random((pictures, 4)) < 0.9
    return (right | lost) & ~gained, (right | gained) & ~lost


@pytest.mark.parametrize("setting", TURNED)
def test_coverage_of_turned_pictures_is_94_to_96_percent(setting):
    pictures, rate, share, alike = setting
    random = np.random.default_rng(4)
    names = [f"{number:05}" for number in range(pictures) for _ in range(4)]
    truth = rate * (2 * share - 1)
    clustered = independent = 0
    for _ in range(2000):
        before, after = (answers.ravel() for answers in turned_answers(random, setting))
        low, high = count_pairs(before, after, names).interval()
        clustered += low <= truth <= high
        low, high = count_pairs(before, after).interval()
        independent += low <= truth <= high
    assert 0.94 <= clustered / 2000 <= 0.96
    # planted fault: turns taken for images of their own
    if alike:
        assert independent / 2000 < 0.85


def test_arrays_that_do_not_go_together_are_refused():
    right = np.ones(3, bool)
    with pytest.raises(GateError, match=r"\(3,\), \(2,\): expected one"):
        count_pairs(right, right[:2])
    with pytest.raises(GateError, match=r"\(3,\), \(3,\), \(1,\)"):
        count_pairs(right, right, ["a"])
    with pytest.raises(GateError, match="no held-out images"):
        count_pairs(right[:0], right[:0])


def test_more_images_of_the_same_kind_narrow_the_interval():
    pairs = Pairs(400, 380, 376, 6, 2)
    low, high = pairs.interval()
    narrow_low, narrow_high = pairs.interval(4.0)
    assert (narrow_low, narrow_high) == tango_interval(24, 8, 1600)
    assert low < narrow_low < 0.01 < narrow_high < high
