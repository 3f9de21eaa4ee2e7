"""Numbers about a network's answers: pure functions of arrays."""

from __future__ import annotations

import math

import numpy as np

from smidgen.train.run import Evaluation

_Z95 = 1.959963984540054


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy in nats of ``(N, C) float`` logits and ``(N,)`` class indices."""
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(exact).sum(axis=1))
    return float((log_total - exact[np.arange(len(labels)), labels]).mean())


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share, 0..1, of ``(N, C)`` logits whose largest is at the ``(N,)`` label."""
    return float((logits.argmax(axis=1) == labels).mean())


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval, in 0..1, of a share of ``hits`` in ``total`` (Wilson 1927)."""
    share, z2 = hits / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    half = _Z95 * spread / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def evaluation(logits: np.ndarray, labels: np.ndarray) -> Evaluation:
    """What ``(N, C)`` logits are worth against ``(N,)`` labels."""
    classes = logits.shape[1]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    low, high = wilson_interval(int(confusion.trace()), len(labels))
    return Evaluation(
        images=len(labels),
        top1_percent=100 * int(confusion.trace()) / len(labels),
        top1_low_percent=100 * low,
        top1_high_percent=100 * high,
        loss=cross_entropy(logits, labels),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )
