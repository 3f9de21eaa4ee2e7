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

    from smidgen.runtime.manifest import Manifest

    Scores = npt.NDArray[np.float32]


_SOFTMAX_STEPS = {"int8": 1 / 256, "int16x8": 1 / 32768}
"""Of the integer softmax in a ``.tflite``, also where its result is made float (``--ends``)."""


def score_floor(manifest: Manifest) -> float:
    """What a score of zero counts as: half a step, shared by all classes; 0 where scores are float.

    A zero of an integer softmax is a probability below half a step. Taken for zero it would make an
    answer certain whatever the temperature; half a step for each of 1,000 classes would outweigh
    the answer.
    """
    step = 0.0
    if manifest.output.dtype != "float32":
        step = manifest.output.scale
    elif manifest.model_format == "tflite":
        step = _SOFTMAX_STEPS.get(manifest.scheme, 0.0)
    return step / 2 / len(manifest.labels)


def shown_scores(scores: Scores, manifest: Manifest) -> Scores:
    """The scores that an answer is shown with: ``calibrated`` as the manifest says."""
    return calibrated(scores, manifest.temperature, score_floor(manifest))


def calibrated(scores: Scores, temperature: float, floor: float = 0.0) -> Scores:
    """Probabilities by temperature ``T > 0``; 1 changes nothing.

    Args:
        scores: ``(N, classes) float32``, 0..1, as the model gives them.
        temperature: above 1 softens, below 1 sharpens.
        floor: smaller scores count as this one; see ``score_floor``.

    Returns:
        The same shape and dtype, 0..1; rows add up to 1. A row of zeros stays as it is.
    """
    if temperature == 1.0:
        return scores
    raised = np.maximum(scores, np.float32(floor))
    highest = np.maximum(raised.max(axis=1, keepdims=True), np.float32(1e-30))
    powers = np.power(raised / highest, np.float32(1 / temperature))
    total = np.maximum(powers.sum(axis=1, keepdims=True), np.float32(1e-30))
    result: Scores = (powers / total).astype(np.float32)
    return result
