"""Kernels that clustering left with few values stay so, also where each channel has its own."""

from __future__ import annotations

import numpy as np

from smidgen.export.quantization.kernels import is_clustered
from smidgen.export.quantization.numbers import rounded_kernel

RANDOM = np.random.default_rng(0)


def clustered_kernel() -> np.ndarray:
    """``(64, 1, 1, 96)``: 16 values, each channel times a factor of its own."""
    values = np.linspace(-1, 1, 16)[RANDOM.integers(0, 16, (64, 1, 1, 96))]
    return (values * RANDOM.uniform(0.1, 9, (64, 1, 1, 1))).astype(np.float32)


def test_a_clustered_kernel_is_known_by_the_values_within_its_channels():
    kernel = clustered_kernel()
    assert len(np.unique(kernel)) > 256
    assert is_clustered(kernel, 0)
    assert not is_clustered(kernel, 3)  # planted fault: another axis
    noise = RANDOM.normal(0, 1, kernel.shape).astype(np.float32)
    assert not is_clustered(noise, 0)
    assert not is_clustered(kernel[:8], 0)  # too small to tell


def test_rounded_to_nearest_it_keeps_its_number_of_values():
    codes = rounded_kernel(clustered_kernel(), 0, per_channel=True).codes
    assert len(np.unique(codes)) == 16
