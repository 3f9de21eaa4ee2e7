"""The accuracy-regression gate: from two models' answers on the same images to a Verdict.

The verdict is on the drop in top-1 and its 95 % interval (``gate.paired``): pass where the whole
interval is within the allowed drop, fail where all of it is beyond, undecided otherwise. Everything
else that is counted is for the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import GateError
from smidgen.export.gate.metrics import (
    FEWEST_CLASSES_FOR_TOP5,
    calibration_error,
    is_in_top,
    worst_class,
)
from smidgen.export.gate.paired import Pairs, count_pairs, design_effect, mcnemar
from smidgen.runtime.manifest import PairedDrop, Verdict, VerdictWord

FLOAT_PARITY = 1e-4
"""Largest allowed difference of a probability between a float32 file and the float model."""

_MOST_IMAGES = 1_000_000

Confidences = tuple[NDArray[np.float32], NDArray[np.float32]]
"""How sure the reference and the candidate say that they are of each answer, ``(N,) float32`` each,
0..1: for a Bundle its highest probability after the manifest's temperature, as a device says it."""


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
class JudgedImages:
    """What is known of the images that both models answered.

    ``truth``: the right class indices, ``(N,) int64``; None: the reference's own answers are taken
    for right. ``labels``: a name for each class; without them no worst class is named.
    ``contents``: the content hash of each image; answers on the same content are not independent.
    None: every image is another one. ``confidences``: how sure both models say that they are of
    their answer on each image; None: the highest probability of each.
    """

    truth: Optional[NDArray[np.int64]] = None
    labels: tuple[str, ...] = ()
    contents: Optional[Sequence[str]] = field(default=None, repr=False)
    confidences: Optional[Confidences] = field(default=None, repr=False)


def decide(low: float, high: float, max_drop: float) -> VerdictWord:
    """The verdict for an interval of the drop and the allowed drop, in the same unit."""
    if high <= max_drop:
        return "pass"
    return "fail" if low > max_drop else "undecided"


def images_needed(pairs: Pairs, max_drop_points: float) -> Optional[int]:
    """About how many images would decide, if the rates of this sample held; None: over a million.

    A sample of ``k`` times the images is taken to have ``k`` times the discordant pairs.
    """
    limit = max_drop_points / 100

    def is_decided(images: int) -> bool:
        low, high = pairs.interval(images / pairs.images)
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
    images: JudgedImages,
    limits: Limits,
    engine: str = "",
) -> tuple[Verdict, Pairs]:
    """The Verdict on a candidate from both models' probabilities on the same images.

    Args:
        reference: the float model's, ``(N, classes) float32``, 0..1.
        candidate: the file's, in its own runtime, same shape.
        images: what is known of them.
        limits: what the file may lose.
        engine: name and version of the runtime that answered, for the record.

    Raises:
        GateError: no images, different shapes, or values that are not finite.
    """
    _check(reference, candidate, images)
    answers, later = reference.argmax(axis=1).astype(np.int64), candidate.argmax(axis=1)
    truth = answers if images.truth is None else images.truth
    pairs = count_pairs(answers == truth, later == truth, _repeated(images.contents))
    low, high = (100 * end for end in pairs.interval())
    difference = np.abs(reference.astype(np.float64) - candidate)
    word = decide(low, high, limits.max_drop_points)
    if limits.parity is not None:
        agrees = float(difference.max()) <= limits.parity and word != "fail"
        word = "pass" if agrees else "fail"
    needed = images_needed(pairs, limits.max_drop_points) if word == "undecided" else None
    verdict = Verdict(
        verdict=word,
        images=pairs.images,
        reference_top1_percent=100 * pairs.reference_right / pairs.images,
        top1_percent=100 * pairs.candidate_right / pairs.images,
        drop_points=100 * (pairs.lost - pairs.gained) / pairs.images,
        drop_low_points=low,
        drop_high_points=high,
        max_drop_points=limits.max_drop_points,
        changed_answers=int((answers != later).sum()),
        mean_score_difference=float(difference.mean()),
        max_score_difference=float(difference.max()),
        truth="reference" if images.truth is None else "labels",
        engine=engine,
        lost=pairs.lost,
        gained=pairs.gained,
        images_to_decide=needed,
        **_details(reference, candidate, truth, images),
        **_sureness(
            images.confidences or (reference.max(axis=1), candidate.max(axis=1)),
            (answers == truth, later == truth),
            has_labels=images.truth is not None,
        ),
    )
    return verdict, pairs


def _check(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], images: JudgedImages
) -> None:
    if reference.shape != candidate.shape or reference.ndim != 2:
        raise GateError(
            f"the file answers with shape {candidate.shape}, the float model with "
            f"{reference.shape}: expected the same (images, classes)"
        )
    if len(reference) == 0:
        raise GateError(
            "the gate got no held-out images, so nothing was verified: add images to the test split"
        )
    for what, count, expected in (
        ("right answers", len(reference if images.truth is None else images.truth), len(reference)),
        ("class names", len(images.labels) or reference.shape[1], reference.shape[1]),
    ):
        if count != expected:
            raise GateError(f"the gate got {count} {what}: expected {expected}; export again")
    for name, scores in (("float model", reference), ("file", candidate)):
        if not np.isfinite(scores).all():
            raise GateError(f"the {name}'s scores hold NaN or infinity: train or export again")


def _repeated(contents: Optional[Sequence[str]]) -> Optional[Sequence[str]]:
    """The contents where one repeats; None where each image is another one."""
    return contents if contents is not None and len(set(contents)) < len(contents) else None


def _details(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    truth: NDArray[np.int64],
    images: JudgedImages,
) -> dict[str, Any]:
    """The Verdict's fields that do not decide."""
    right, also = reference.argmax(axis=1) == truth, candidate.argmax(axis=1) == truth
    contents = _repeated(images.contents)
    test = mcnemar(right, also, contents)
    details: dict[str, Any] = {
        "mcnemar_p": test.exact,
        "mcnemar_mid_p": test.mid_p,
    }
    if contents is not None:
        details["distinct_images"] = len(set(contents))
        details["design_effect"] = design_effect(right, also, contents)
    if images.labels:
        named, compared = worst_class(truth, right, also, images.labels)
        details |= {"worst_class": named, "classes_compared": compared}
    if reference.shape[1] >= FEWEST_CLASSES_FOR_TOP5:
        before, after = is_in_top(reference, truth, 5), is_in_top(candidate, truth, 5)
        details["top5"] = _paired_drop(count_pairs(before, after, contents))
    return details


def _sureness(
    confidences: Confidences,
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    *,
    has_labels: bool,
) -> dict[str, Any]:
    """The Verdict's fields on how sure the answers are; ``right``: which ones are, of each."""
    before, after = (confidence.mean(dtype=np.float64) for confidence in confidences)
    details: dict[str, Any] = {"confidence_shift_points": 100 * float(after - before)}
    if has_labels:  # calibration to a model's own answers says nothing
        errors = [100 * calibration_error(*pair) for pair in zip(confidences, right)]
        details["reference_calibration_error_percent"] = errors[0]
        details["calibration_error_percent"] = errors[1]
    return details


def _paired_drop(pairs: Pairs) -> PairedDrop:
    low, high = pairs.interval()
    return PairedDrop(
        reference_percent=100 * pairs.reference_right / pairs.images,
        percent=100 * pairs.candidate_right / pairs.images,
        drop_points=100 * (pairs.lost - pairs.gained) / pairs.images,
        drop_low_points=100 * low,
        drop_high_points=100 * high,
    )
