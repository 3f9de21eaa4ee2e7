"""How sure an answer is: temperature scaling of probabilities.

``p_i^(1/T) / sum_j p_j^(1/T)`` is the softmax of the logits divided by T (Guo et al. 2017, On
calibration of modern neural networks, arXiv:1706.04599, section 4.2). The order of the labels stays
as it is. ``smidgen export`` fits T and the threshold below which an answer abstains, for each file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Scores = npt.NDArray[np.float32]


def calibrated(scores: Scores, temperature: float) -> Scores:
    """Probabilities by temperature ``T > 0``; 1 changes nothing.

    Args:
        scores: ``(N, classes) float32``, 0..1, as the model gives them.
        temperature: above 1 softens, below 1 sharpens.

    Returns:
        The same shape and dtype; rows add up to 1. A row of zeros stays as it is.
    """
    if temperature == 1.0:
        return scores
    highest = np.maximum(scores.max(axis=1, keepdims=True), np.float32(1e-30))
    powers = np.power(scores / highest, np.float32(1 / temperature))
    total = np.maximum(powers.sum(axis=1, keepdims=True), np.float32(1e-30))
    result: Scores = (powers / total).astype(np.float32)
    return result
