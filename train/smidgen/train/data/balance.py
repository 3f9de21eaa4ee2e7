"""What an image of each class counts, so that rare classes are heard."""

from __future__ import annotations

import numpy as np


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Weights ``(C,) float32`` inverse to the ``(C,)`` counts of images; the mean over all images
    is 1. A class without images counts nothing.
    """
    present = counts > 0
    share = counts / counts.sum()
    weights = np.zeros(len(counts), np.float32)
    weights[present] = 1.0 / (share[present] * present.sum())
    return weights
