"""Weights of downloads: what gzip and zip programs themselves unpack, the same every time."""

from __future__ import annotations

import gzip
import subprocess

import numpy as np

from smidgen.export.formats.compressed import gzip_bytes

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, 100_000).astype(np.uint8)
CLUSTERED = NOISE % 16
SPARSE = np.where(RANDOM.random(100_000) < 0.8, 0, NOISE).astype(np.uint8)


def test_few_values_and_zeros_shrink_and_noise_does_not():
    noise, clustered, sparse = (gzip_bytes(a.tobytes()) for a in (NOISE, CLUSTERED, SPARSE))
    assert 100_000 < noise < 100_100
    assert 0.49 < clustered / 100_000 < 0.60  # 4 bits of 8
    assert 0.25 < sparse / 100_000 < 0.45  # entropy: 0.2 * 8 + H(0.8) bits of 8 are 0.29


def test_figures_are_the_same_in_every_run_and_alike():
    data = CLUSTERED.tobytes()
    assert gzip_bytes(data) == gzip_bytes(data) == len(gzip.compress(data, 9, mtime=1))


def test_the_gzip_program_weighs_the_same(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(SPARSE.tobytes())
    packed = subprocess.run(["gzip", "-9nc", str(path)], capture_output=True, check=True).stdout
    assert abs(len(packed) - gzip_bytes(SPARSE.tobytes())) <= 0.01 * len(packed)
