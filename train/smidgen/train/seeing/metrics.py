"""Numbers about a network's answers: pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from smidgen.train.seeing.evaluation import (
    ClassMetrics,
    Evaluation,
    OrientationErrors,
    ReliabilityBin,
)

RELIABILITY_BINS = 15
MOST_K = 5

_Z95 = 1.959963984540054


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy in nats of ``(N, C) float`` logits and ``(N,)`` class indices."""
    log_probabilities = _log_softmax(logits)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of ``(N, C) float`` logits: ``(N, C) float64``, rows add up to 1."""
    exact: np.ndarray = np.exp(_log_softmax(logits))
    return exact


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share, 0..1, of ``(N, C)`` logits whose largest is at the ``(N,)`` label."""
    return float((logits.argmax(axis=1) == labels).mean())


def top_k(logits: np.ndarray, labels: np.ndarray, most: int = MOST_K) -> tuple[float, ...]:
    """Shares, 0..1, of ``(N,)`` labels among the k largest of ``(N, C)`` logits.

    For k = 1 to ``most``, or to C where there are fewer classes. Of equal logits the first counts
    as the larger, as in ``argmax``.
    """
    own = logits[np.arange(len(labels)), labels][:, np.newaxis]
    before = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    rank = ((logits > own) | ((logits == own) & before)).sum(axis=1)
    return tuple(float((rank < k).mean()) for k in range(1, min(most, logits.shape[1]) + 1))


def confusion_matrix(answers: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """``(classes, classes) int64``: how often label i (row) was answered j (column)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, answers), 1)
    return counts


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval, in 0..1, of a share of ``hits`` in ``total`` (Wilson 1927)."""
    share, z2 = hits / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    half = _Z95 * spread / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def class_metrics(confusion: np.ndarray, names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Precision, recall and F1 of each class of a ``(C, C)`` confusion matrix."""
    answered = confusion.sum(axis=0)
    return tuple(
        _of_class(name, int(confusion[i, i]), int(confusion[i].sum()), int(answered[i]))
        for i, name in enumerate(names)
    )


def reliability(
    logits: np.ndarray, labels: np.ndarray, bins: int = RELIABILITY_BINS
) -> tuple[ReliabilityBin, ...]:
    """How often the answers of each confidence are right: bins of equal width (Guo et al. 2017).

    Bin m of M holds the images whose highest softmax probability lies in ``((m-1)/M, m/M]``.
    """
    shares = probabilities(logits)
    confidence = shares.max(axis=1)
    is_right = logits.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.digitize(confidence, edges[1:-1], right=True)
    result = []
    for index in range(bins):
        chosen = place == index
        some = bool(chosen.any())
        result.append(
            ReliabilityBin(
                low=float(edges[index]),
                high=float(edges[index + 1]),
                images=int(chosen.sum()),
                confidence=float(confidence[chosen].mean()) if some else None,
                accuracy=float(is_right[chosen].mean()) if some else None,
            )
        )
    return tuple(result)


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error, 0..1: the mean of |accuracy - confidence| over images.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    total = sum(item.images for item in bins)
    gaps = (
        item.images * abs(item.accuracy - item.confidence)
        for item in bins
        if item.accuracy is not None and item.confidence is not None
    )
    return sum(gaps) / total


def orientation_errors(confusion: np.ndarray) -> OrientationErrors:
    """The kinds of wrong turns in a ``(4, 4)`` confusion of 0, 90, 180 and 270 degrees."""
    counts = [[int(count) for count in row] for row in confusion]
    total = sum(map(sum, counts))
    upside_down = counts[0][2] + counts[2][0]
    sideways = counts[1][3] + counts[3][1]
    quarter = total - sum(counts[i][i] for i in range(4)) - upside_down - sideways
    return OrientationErrors(
        half_turn_0_180=upside_down,
        half_turn_0_180_percent=100 * upside_down / total,
        half_turn_90_270=sideways,
        half_turn_90_270_percent=100 * sideways / total,
        quarter_turn=quarter,
        quarter_turn_percent=100 * quarter / total,
    )


def evaluation(
    logits: np.ndarray, labels: np.ndarray, names: Sequence[str], *, is_orientation: bool = False
) -> Evaluation:
    """What ``(N, C) float`` logits are worth against ``(N,)`` labels; N is at least 1.

    Args:
        logits: any float dtype; two columns where the network has one output (0 and its logit).
        labels: class indices, 0..C-1.
        names: the C class names.
        is_orientation: the classes are 0, 90, 180 and 270 degrees, in this order.
    """
    confusion = confusion_matrix(logits.argmax(axis=1), labels, logits.shape[1])
    hits = int(confusion.trace())
    low, high = wilson_interval(hits, len(labels))
    classes = class_metrics(confusion, names)
    bins = reliability(logits, labels)
    return Evaluation(
        images=len(labels),
        top1_percent=100 * hits / len(labels),
        top1_low_percent=100 * low,
        top1_high_percent=100 * high,
        loss=cross_entropy(logits, labels),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        top_k_percent=tuple(100 * share for share in top_k(logits, labels)),
        macro_precision_percent=_mean([c.precision_percent for c in classes if c.images]),
        macro_recall_percent=_mean([c.recall_percent for c in classes if c.images]),
        macro_f1_percent=_mean([c.f1_percent for c in classes if c.images]),
        calibration_error_percent=100 * calibration_error(bins),
        reliability=bins,
        classes=classes,
        orientation=orientation_errors(confusion) if is_orientation else None,
    )


def _of_class(name: str, hits: int, images: int, answered: int) -> ClassMetrics:
    if images == 0:
        precision = 0.0 if answered else None
        return ClassMetrics(name, 0, precision, None, None, None, None)
    low, high = wilson_interval(hits, images)
    return ClassMetrics(
        label=name,
        images=images,
        precision_percent=100 * hits / answered if answered else 0.0,
        recall_percent=100 * hits / images,
        recall_low_percent=100 * low,
        recall_high_percent=100 * high,
        f1_percent=200 * hits / (images + answered),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    result: np.ndarray = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    return result
