"""What two models' probabilities say beyond the first answer: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from smidgen.runtime.manifest import ClassAnswers

FEWEST_CLASSES_FOR_TOP5 = 10
FEWEST_IMAGES_OF_A_CLASS = 20
"""Below that one image is more than five points of a class's recall: such a class is not named."""
CALIBRATION_BINS = 15


def is_in_top(
    scores: NDArray[np.float32], truth: NDArray[np.int64], count: int
) -> NDArray[np.bool_]:
    """Whether the right class is among the ``count`` most probable ones, ``(N,) bool``.

    A class that shares its probability with others beyond that place is not among them: the model
    cannot tell it from them. That happens in int8 files, whose probabilities are steps of 1/256.

    Args:
        scores: probabilities, ``(N, classes) float32``.
        truth: the right class indices, ``(N,) int64``.
        count: how many classes count.
    """
    own = np.take_along_axis(scores, truth[:, None], axis=1)
    rank: NDArray[np.int64] = (scores >= own).sum(axis=1)
    return rank <= count


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Expected calibration error, 0..1: the mean of |accuracy - confidence| over the images.

    Bin m of 15 holds the images with a confidence in ``((m-1)/15, m/15]`` (Guo et al., On
    Calibration of Modern Neural Networks, ICML 2017, equation 3).

    Args:
        confidence: the top probability of each image, ``(N,) float32``, 0..1.
        right: whether that answer is right, ``(N,) bool``.
    """
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    place = np.digitize(confidence, edges[1:-1], right=True)
    gap = right.astype(np.float64) - confidence
    gaps = np.bincount(place, weights=gap, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def worst_class(
    truth: NDArray[np.int64],
    reference_right: NDArray[np.bool_],
    candidate_right: NDArray[np.bool_],
    labels: Sequence[str],
) -> tuple[Optional[ClassAnswers], int]:
    """The class whose recall drops most, and how many classes have images enough to be named.

    Of equal drops the class with more images, then the first. None where no class has enough
    (``FEWEST_IMAGES_OF_A_CLASS``). It is the worst of many, so its drop is expected to look larger
    than it is: a place to look at, not a finding.

    Args:
        truth: the right class indices, ``(N,) int64``.
        reference_right: which images the reference answers right, ``(N,) bool``.
        candidate_right: the same of the candidate.
        labels: a name for each class index.
    """
    count = len(labels)
    images = np.bincount(truth, minlength=count)
    before = np.bincount(truth[reference_right], minlength=count)
    after = np.bincount(truth[candidate_right], minlength=count)
    enough = np.flatnonzero(images >= FEWEST_IMAGES_OF_A_CLASS)
    if not len(enough):
        return None, 0
    drop = (before - after) / np.maximum(images, 1)
    worst = max(enough.tolist(), key=lambda index: (drop[index], images[index], -index))
    named = ClassAnswers(labels[worst], int(images[worst]), int(before[worst]), int(after[worst]))
    return named, len(enough)
