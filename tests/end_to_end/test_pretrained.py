"""The 1,000-class model with its imported weights, through both float Bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from reduced_line import REPO, smidgen

from smidgen.runtime import Bundle, Classifier
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
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The float32 Bundle of each format, made without training and without pictures."""
    folder = tmp_path_factory.mktemp("pretrained")
    ended = smidgen(["export", "--pretrained", "efficientnet-lite0", "--out", str(folder)])
    assert ended.status == 0, ended.stderr
    assert "float32 only: int8 needs --images FOLDER" in ended.stderr
    assert len(ended.stdout.splitlines()) == 2
    return {form: next(folder.glob(f"*float32*.{form}")) for form in ("tflite", "onnx")}


def scores_of(path: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """``(N, 1000)`` probabilities of a Bundle for ``(N, H, W, 3)`` pixels."""
    with Classifier(path, threads=2) as classifier:
        return np.concatenate([classifier.scores(one[np.newaxis]) for one in pixels])


def top1_percent(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """Share of ``(N, 1000)`` scores whose highest is at ``truth``, ``(N,)``."""
    return float(100 * (scores.argmax(axis=1) == truth).mean())


def test_both_formats_are_judged_labelled_and_agree(bundles: dict[str, Path]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    scores = {form: scores_of(path, pixels) for form, path in bundles.items()}
    for path in bundles.values():
        manifest = Bundle.open(path).manifest
        assert len(manifest.labels) == 1000
        assert manifest.labels[1].startswith("goldfish")
        assert manifest.preprocessing.crop_fraction == 224 / 256
        assert manifest.verdict is not None
        assert (manifest.verdict.verdict, manifest.verdict.truth) == ("pass", "reference")
        assert manifest.verdict.max_score_difference <= AGREEMENT
    assert np.abs(scores["tflite"] - scores["onnx"]).max() <= AGREEMENT
    # The planted fault: red and blue swapped.
    swapped = scores_of(bundles["onnx"], pixels[..., ::-1])
    assert np.abs(swapped - scores["onnx"]).max() > AGREEMENT


def test_the_imported_weights_know_the_photos(photos: list[Path], bundles: dict[str, Path]) -> None:
    truth = np.array([int(path.name[:4]) for path in photos])
    preprocessing = Bundle.open(bundles["onnx"]).manifest.preprocessing
    pixels = np.stack([load_pixels(photo, preprocessing) for photo in photos])
    scores = {form: scores_of(path, pixels) for form, path in bundles.items()}
    for rows in scores.values():
        assert rows.shape == (len(photos), 1000)
        assert top1_percent(rows, truth) >= TOP1_PERCENT
        assert top1_percent(rows, truth + 1) < 5  # a label list that is off by one
    assert np.abs(scores["tflite"] - scores["onnx"]).max() <= AGREEMENT
