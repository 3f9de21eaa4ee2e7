"""The 1,000-class model with its imported weights, through both float Bundles, on real photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from reduced_line import REPO, smidgen

from smidgen.runtime import Classifier
from smidgen.runtime.preprocessing import load_pixels

pytestmark = pytest.mark.slow

PHOTOS = REPO.parent / "shared" / "data" / "imagenet500"
TOP1_PERCENT = 88.0
AGREEMENT = 1e-4


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    """The photos; the first four digits of a name are the class's index."""
    found = sorted(PHOTOS.glob("*.JPEG"))
    if not found:
        pytest.skip("needs the folder of 500 ImageNet sample photos beside the repository")
    return found


@pytest.fixture(scope="module")
def bundles(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The float32 Bundle of each format, made without training."""
    assert photos
    folder = tmp_path_factory.mktemp("pretrained")
    argv = ["export", "--pretrained", "efficientnet-lite0", "--schemes", "float32"]
    ended = smidgen([*argv, "--out", str(folder)])
    assert ended.status == 0, ended.stderr
    return {form: next(folder.glob(f"*float32*.{form}")) for form in ("tflite", "onnx")}


def top1_percent(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """Share of ``(N, 1000)`` scores whose highest is at ``truth``, ``(N,)``."""
    return float(100 * (scores.argmax(axis=1) == truth).mean())


def test_the_imported_weights_know_the_photos_and_both_formats_agree(
    photos: list[Path], bundles: dict[str, Path]
) -> None:
    truth = np.array([int(path.name[:4]) for path in photos])
    scores: dict[str, npt.NDArray[np.float32]] = {}
    for form, path in bundles.items():
        with Classifier(path, threads=2) as classifier:
            manifest = classifier.manifest
            pixels = [load_pixels(photo, manifest.preprocessing) for photo in photos]
            scores[form] = np.concatenate([classifier.scores(one[np.newaxis]) for one in pixels])
            swapped = classifier.scores(pixels[0][np.newaxis, :, :, ::-1])
        assert len(manifest.labels) == 1000
        assert manifest.labels[1].startswith("goldfish")
        assert scores[form].shape == (len(photos), 1000)
        assert top1_percent(scores[form], truth) >= TOP1_PERCENT
        # The planted faults: a label list that is off by one, and red and blue swapped.
        assert top1_percent(scores[form], truth + 1) < 5
        assert np.abs(swapped - scores[form][:1]).max() > AGREEMENT
    assert np.abs(scores["tflite"] - scores["onnx"]).max() <= AGREEMENT
