"""The accuracy-regression gate: pure functions from paired answers to a Verdict.

Both models answer the same held-out images, so the answers come in pairs. Only the discordant pairs
carry information about the difference: ``lost`` images that the reference gets right and the
candidate wrong, ``gained`` images the other way round. The drop in top-1 is
``(lost - gained) / images``; its interval is Tango's score interval for paired differences

    T. Tango: Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design. Statistics in Medicine 17 (1998) 891-908

which keeps its coverage near zero discordant pairs, where a Wald interval is empty and would let
any file pass on a handful of images (see Fagerland, Lydersen, Laake, Statistics in Medicine 33
(2014) 2850-2875, who recommend it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import GateError
from smidgen.runtime.manifest import Verdict, VerdictWord

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: two-sided 95 %."""

FLOAT_PARITY = 1e-4
"""Largest allowed difference of a probability between a float32 file and the float model."""

_MOST_IMAGES = 100_000_000


@dataclass(frozen=True)
class Limits:
    """What a file may lose.

    ``max_drop_points``: of top-1, in percentage points. ``parity``: for a float32 file, the largest
    allowed difference of a probability. Such a file is judged by it: above it the file fails,
    whatever its top-1; within it the two models are the same function, and only a proven drop
    fails it, however few the images are.
    """

    max_drop_points: float
    parity: Optional[float] = None


@dataclass(frozen=True)
class Pairs:
    """Counts over ``images`` paired answers; ``lost`` and ``gained`` are the discordant pairs."""

    images: int
    reference_right: int
    candidate_right: int
    lost: int
    gained: int
    changed: int


def count_pairs(
    truth: NDArray[np.int64], reference: NDArray[np.int64], candidate: NDArray[np.int64]
) -> Pairs:
    """Count the pairs of three arrays of class indices, each ``(N,) int64``.

    Raises:
        GateError: no images, or arrays of different lengths.
    """
    if not truth.shape == reference.shape == candidate.shape or truth.ndim != 1:
        raise GateError(
            f"the gate got answers of shapes {truth.shape}, {reference.shape}, {candidate.shape}: "
            "expected one class index per image from each; export again"
        )
    if truth.size == 0:
        raise GateError(
            "the gate got no held-out images, so nothing was verified: add images to the test split"
        )
    right, also = reference == truth, candidate == truth
    return Pairs(
        images=int(truth.size),
        reference_right=int(right.sum()),
        candidate_right=int(also.sum()),
        lost=int((right & ~also).sum()),
        gained=int((~right & also).sum()),
        changed=int((reference != candidate).sum()),
    )


def tango_interval(
    lost: float, gained: float, images: float, z: float = Z_95
) -> tuple[float, float]:
    """Score interval of ``(lost - gained) / images``, as shares in -1..1.

    ``z`` is the normal quantile (1.96 for two-sided 95 %). Real-valued counts are allowed.

    Raises:
        GateError: no images, or more discordant pairs than images.
    """
    if images <= 0 or lost < 0 or gained < 0 or lost + gained > images:
        raise GateError(
            f"no interval for {lost:g} lost and {gained:g} gained of {images:g} images: "
            "expected at least one image and no more discordant pairs than images"
        )
    estimate = (lost - gained) / images

    def end(sign: float) -> float:
        inside, outside = estimate, sign
        for _ in range(100):
            middle = (inside + outside) / 2
            if abs(_score(lost, gained, images, middle)) <= z:
                inside = middle
            else:
                outside = middle
        return inside

    return end(-1.0), end(1.0)


def _score(lost: float, gained: float, images: float, difference: float) -> float:
    """Tango's statistic for a true ``difference``: asymptotically standard normal under it."""
    numerator = lost - gained - images * difference
    a = 2 * images
    b = -lost - gained + (2 * images - lost + gained) * difference
    c = -gained * difference * (1 - difference)
    gained_rate = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = images * (2 * gained_rate + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if abs(numerator) < 1e-12 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def decide(low: float, high: float, max_drop: float) -> VerdictWord:
    """The verdict for an interval of the drop and the allowed drop, in the same unit."""
    if high <= max_drop:
        return "pass"
    return "fail" if low > max_drop else "undecided"


def images_needed(pairs: Pairs, max_drop_points: float) -> Optional[int]:
    """About how many images would decide, if the rates of this sample held; None: no number would.

    A sample of ``k`` times the images is taken to have ``k`` times the discordant pairs.
    """
    limit = max_drop_points / 100

    def is_decided(images: int) -> bool:
        share = images / pairs.images
        low, high = tango_interval(pairs.lost * share, pairs.gained * share, images)
        return decide(low, high, limit) != "undecided"

    upper = pairs.images
    while not is_decided(upper):
        upper *= 2
        if upper > _MOST_IMAGES:
            return None
    lower = upper // 2
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (lower, middle) if is_decided(middle) else (middle, upper)
    return upper


def judge_scores(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    *,
    truth: Optional[NDArray[np.int64]],
    limits: Limits,
    engine: str = "",
) -> tuple[Verdict, Pairs]:
    """The Verdict on a candidate from both models' probabilities on the same images.

    Args:
        reference: the float model's, ``(N, classes) float32``, 0..1.
        candidate: the file's, in its own runtime, same shape.
        truth: the right class indices, ``(N,) int64``; None: the reference's own answers.
        limits: what the file may lose.
        engine: name and version of the runtime that answered, for the record.

    Raises:
        GateError: no images, different shapes, or values that are not finite.
    """
    if reference.shape != candidate.shape or reference.ndim != 2:
        raise GateError(
            f"the file answers with shape {candidate.shape}, the float model with "
            f"{reference.shape}: expected the same (images, classes)"
        )
    for name, scores in (("float model", reference), ("file", candidate)):
        if not np.isfinite(scores).all():
            raise GateError(f"the {name}'s scores hold NaN or infinity: train or export again")
    answers = reference.argmax(axis=1).astype(np.int64)
    right = answers if truth is None else truth
    pairs = count_pairs(right, answers, candidate.argmax(axis=1).astype(np.int64))
    low, high = (100 * end for end in tango_interval(pairs.lost, pairs.gained, pairs.images))
    difference = np.abs(reference.astype(np.float64) - candidate)
    word = decide(low, high, limits.max_drop_points)
    if limits.parity is not None:
        agrees = float(difference.max()) <= limits.parity and word != "fail"
        word = "pass" if agrees else "fail"
    verdict = Verdict(
        verdict=word,
        images=pairs.images,
        reference_top1_percent=100 * pairs.reference_right / pairs.images,
        top1_percent=100 * pairs.candidate_right / pairs.images,
        drop_points=100 * (pairs.lost - pairs.gained) / pairs.images,
        drop_low_points=low,
        drop_high_points=high,
        max_drop_points=limits.max_drop_points,
        changed_answers=pairs.changed,
        mean_score_difference=float(difference.mean()),
        max_score_difference=float(difference.max()),
        truth="reference" if truth is None else "labels",
        engine=engine,
    )
    return verdict, pairs
