"""From logits and answers to the figures of the comparison: pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smidgen.export.gate.paired import count_pairs, tango_interval
from smidgen.train.seeing.metrics import wilson_interval

RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """``hits`` of ``total``, with Wilson's 95 % interval in 0..1."""

    hits: int
    total: int
    low: float
    high: float


@dataclass(frozen=True)
class Top1:
    """By label, in percent; the drop against the float model in points, with its 95 % interval."""

    percent: float
    drop_points: float
    drop_low_points: float
    drop_high_points: float


@dataclass(frozen=True)
class Fidelity:
    """How near an int8 file is to the float model on N images.

    ``kept``: images with the float model's answer. ``image_differences``: for each image the mean
    over the classes of ``|float logit - int8 logit|``; ``mean_difference`` is their mean and
    ``largest_difference`` the largest single one. ``top1`` is None without labels.
    """

    kept: Share
    mean_difference: float
    largest_difference: float
    image_differences: tuple[float, ...]
    top1: Top1 | None


@dataclass(frozen=True)
class PairedRatio:
    """A ratio of two means over the same images, with its 95 % interval."""

    value: float
    low: float
    high: float


def compare(
    reference: NDArray[np.float32],
    logits: NDArray[np.float32],
    answers: NDArray[np.int64],
    truth: NDArray[np.int64] | None,
) -> Fidelity:
    """Compare a file with the float model.

    Args:
        reference: the float model's logits, ``(N, classes)``.
        logits: the file's, dequantized, same shape.
        answers: the file's own classes, ``(N,)``.
        truth: the right classes, ``(N,)``, or None.

    Raises:
        ValueError: shapes that do not fit together, or values that are not finite.
    """
    if reference.shape != logits.shape or answers.shape != reference.shape[:1]:
        raise ValueError(
            f"logits {logits.shape} and answers {answers.shape} do not fit the float model's "
            f"{reference.shape}"
        )
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    expected = reference.argmax(axis=1).astype(np.int64)
    hits = int((expected == answers).sum())
    low, high = wilson_interval(hits, len(expected))
    differences = np.abs(reference.astype(np.float64) - logits)
    by_image = differences.mean(axis=1)
    return Fidelity(
        kept=Share(hits, len(expected), low, high),
        mean_difference=float(by_image.mean()),
        largest_difference=float(differences.max()),
        image_differences=tuple(by_image.tolist()),
        top1=None if truth is None else _top1(truth, expected, answers),
    )


def _top1(
    truth: NDArray[np.int64], expected: NDArray[np.int64], answers: NDArray[np.int64]
) -> Top1:
    pairs = count_pairs(expected == truth, answers == truth)
    low, high = tango_interval(pairs.lost, pairs.gained, pairs.images)
    drop = (pairs.lost - pairs.gained) / pairs.images
    return Top1(100 * pairs.candidate_right / pairs.images, 100 * drop, 100 * low, 100 * high)


def ratio_of_differences(ours: Fidelity, theirs: Fidelity) -> PairedRatio:
    """Ratio of the mean logit differences of two files on the same images.

    The interval is a percentile bootstrap over the images (Efron 1979), which stay paired, with a
    fixed seed.
    """
    pairs = np.array([ours.image_differences, theirs.image_differences])
    images = pairs.shape[1]
    drawn = np.random.default_rng(0).integers(0, images, (RESAMPLES, images))
    means = pairs[:, drawn].mean(axis=2)
    low, high = np.percentile(means[0] / means[1], (2.5, 97.5))
    return PairedRatio(ours.mean_difference / theirs.mean_difference, float(low), float(high))
