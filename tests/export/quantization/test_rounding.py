"""Rounding weights together: less error in the output than to nearest, zeros stay."""

from __future__ import annotations

import itertools

import numpy as np

from smidgen.export.quantization.rounding import rounded_together


def output_error(rows, rounded, covariance):
    error = rounded - rows
    return float(np.einsum("grt,gtu,gru->", error, covariance, error))


def covariance_of(taps, seed=0, groups=1):
    random = np.random.default_rng(seed)
    shared = random.normal(size=(groups, 500, 1))
    patches = shared + 0.3 * random.normal(size=(groups, 500, taps))  # neighbours are alike
    return patches.transpose(0, 2, 1) @ patches / 500


def test_much_less_error_than_to_nearest():
    rows = np.random.default_rng(1).uniform(-100, 100, (2, 30, 90))
    covariance = covariance_of(90, groups=2)
    together = rounded_together(rows, covariance)
    nearest = output_error(rows, np.rint(rows), covariance)
    assert output_error(rows, together, covariance) < 0.3 * nearest
    assert np.array_equal(together, np.rint(together))
    assert np.abs(together - rows).max() < 5
    # planted fault: taps taken for alike that are opposite
    sign = np.where(np.arange(90) % 2, 1, -1)
    other = rounded_together(rows, covariance * sign * sign[:, np.newaxis])
    assert output_error(rows, other, covariance) > nearest


def test_close_to_the_best_of_all_roundings():
    rows = np.random.default_rng(2).uniform(-3, 3, (1, 20, 6))
    covariance = covariance_of(6, seed=3)
    found = rounded_together(rows, covariance)
    ratios = []
    for row, got in zip(rows[0], found[0], strict=True):
        choices = itertools.product(*[(np.floor(w) - 1, np.floor(w), np.ceil(w)) for w in row])
        errors = [(np.asarray(c) - row) @ covariance[0] @ (np.asarray(c) - row) for c in choices]
        ratios.append(((got - row) @ covariance[0] @ (got - row)) / min(errors))
    assert np.median(ratios) < 1.5


def test_zeros_stay_and_codes_stay_in_range():
    random = np.random.default_rng(4)
    rows = random.uniform(-127, 127, (1, 10, 40))
    rows[random.random(rows.shape) < 0.5] = 0
    rows[0, 0, :4] = 127
    got = rounded_together(rows, covariance_of(40))
    assert (got[rows == 0] == 0).all()
    assert np.abs(got).max() <= 127


def test_equal_input_equal_bytes():
    rows = np.random.default_rng(5).uniform(-100, 100, (1, 8, 70))
    covariance = covariance_of(70)
    assert (
        rounded_together(rows, covariance).tobytes() == rounded_together(rows, covariance).tobytes()
    )
