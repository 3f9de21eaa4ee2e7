"""Histograms and calibrators against cases that can be reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.quantization.calibrators import (
    calibrator_of,
    entropy,
    least_square_error,
    min_max,
    percentile,
)
from smidgen.export.quantization.histogram import HALF, Histogram, joined
from smidgen.export.quantization.numbers import Code
from smidgen.export.recipe import QuantizationRecipe


def histogram_of(*arrays):
    histogram = Histogram()
    for values in arrays:
        histogram.add(np.asarray(values, np.float32).reshape(-1, 1))
    return histogram


def squared_error(values, low, high):
    code = Code.of(low, high)
    codes = np.clip(np.rint(values / code.scale) + code.zero_point, -128, 127)
    return float(((code.dequantized(codes) - values) ** 2).mean())


def test_the_order_of_images_does_not_matter():
    small, large = np.linspace(-0.9, 0.9, 999), np.linspace(-90, 70, 999)
    one, other = histogram_of(small, large), histogram_of(large, small)
    assert np.array_equal(one.counts, other.counts)
    assert one.counts.sum() == 1997  # the exact zero is left out
    assert (one.width, other.width) == (1 / 16, 1 / 16)  # 90 < 2048 / 16
    assert one.counts[:HALF].sum() == 499 + 562  # -90 + i * 160 / 998 < 0: i <= 561


def test_channels_have_their_own_ends():
    histogram = Histogram()
    histogram.add(np.asarray([[[1.0, -2.0], [3.0, 0.5]]], np.float32))
    histogram.add(np.asarray([[[-1.0, 4.0], [0.0, 0.0]]], np.float32))
    assert histogram.channel_low.tolist() == [-1.0, -2.0]
    assert histogram.channel_high.tolist() == [3.0, 4.0]
    assert histogram.channel_mean_square.tolist() == [11 / 4, (4 + 0.25 + 16) / 4]
    assert min_max(histogram) == (-2.0, 4.0)


def test_joined_counts_both():
    both = joined([histogram_of([1.0, -1.0]), histogram_of([100.0])])
    assert both.counts.sum() == 3
    assert min_max(both) == (-1.0, 100.0)


def test_percentile_leaves_out_what_it_should():
    histogram = histogram_of(np.arange(1, 1001))  # width 1/2: 1000 < 2048 / 2
    low, high = percentile(histogram, 90)
    assert low == 0
    assert high == pytest.approx(900, abs=1)
    assert percentile(histogram, 100) == (0, 1000)
    low, high = percentile(histogram_of(np.arange(-1000, 1001)), 90)
    assert (low, high) == (pytest.approx(-900, abs=2), pytest.approx(900, abs=2))


def test_least_square_error_beats_all_other_clips():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 1, 60_000), [40.0, -25.0]])
    low, high = least_square_error(histogram_of(values))
    assert -25 < low < -3
    assert 3 < high < 40
    found = squared_error(values, low, high)
    tried = [
        squared_error(values, -25 * a, 40 * b)
        for a in np.linspace(0.1, 1, 19)
        for b in np.linspace(0.1, 1, 19)
    ]
    assert found <= 1.03 * min(tried)
    assert found < 0.9 * squared_error(values, -25, 40)  # planted fault: no clipping at all


def test_relu6_keeps_its_ends():
    random = np.random.default_rng(0)
    values = np.clip(random.normal(2, 4, 50_000), 0, 6)
    for calibrator in (min_max, least_square_error):
        assert calibrator(histogram_of(values)) == (0.0, 6.0)
    code = Code.of(0.0, 6.0)
    assert (code.zero_point, code.range) == (-128, (0.0, pytest.approx(6.0)))


def test_entropy_clips_a_long_tail_and_keeps_an_even_spread():
    random = np.random.default_rng(0)
    tail = np.concatenate([random.normal(0, 1, 60_000), [60.0]])
    low, high = entropy(histogram_of(tail))
    assert 2 < high < 20
    assert -5 < low < -2
    even = histogram_of(np.linspace(-1, 1, 60_001))
    assert entropy(even)[1] == pytest.approx(1, abs=0.02)


def test_a_tensor_of_zeros_has_a_code():
    for name in ("min-max", "percentile", "entropy", "mse"):
        settings = QuantizationRecipe(calibrator=name)
        assert calibrator_of(settings)(histogram_of(np.zeros(9))) == (0, 0)
    assert Code.of(0, 0).scale > 0
