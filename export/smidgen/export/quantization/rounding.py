"""Rounding the weights of a kernel together, so that their errors cancel in the output.

Rounding to nearest makes each weight's error small; what counts is the error of the output,
``e @ covariance @ e`` for the errors ``e`` of a row of weights (its mean goes into the bias). The
weights are rounded one after the other, each error being spread over those not yet rounded (GPTQ:
Frantar et al. 2022, arXiv:2210.17323, after Hassibi and Stork 1993); then single weights are
moved where that lowers the error. A weight of zero stays zero: pruned networks keep their zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smidgen.export.quantization.numbers import LARGEST_WEIGHT

DAMPING = 0.01
"""Share of the mean variance that is added to each variance: few images, many taps."""

_SWEEPS = 1
_BLOCK = 64


def rounded_together(
    rows: NDArray[np.float64],
    covariance: NDArray[np.float64],
    largest: int = LARGEST_WEIGHT,
) -> NDArray[np.float64]:
    """Whole numbers -``largest``..``largest`` near ``rows`` with little error in the output.

    Args:
        rows: weights in units of their scale, ``(groups, rows, taps)``.
        covariance: of the patches, ``(groups, taps, taps)``.
    """
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    order = np.argsort(-variances.mean(axis=0), kind="stable")
    damped, factor = _factored(covariance[:, order][:, :, order])
    rounded = np.empty_like(rows)
    ordered = rows[:, :, order]
    start = _spread(ordered, factor, largest)
    rounded[:, :, order] = _descended(ordered, start, damped, largest)
    return rounded


def _factored(
    covariance: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The damped covariance, and the upper Cholesky factor of its inverse.

    A covariance that is singular by rounding (channels without life) is damped ten times as much.
    """
    taps = covariance.shape[1]
    mean = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)
    mean = np.maximum(mean, max(1e-9 * float(mean.max()), 1e-12))
    damping = DAMPING
    while True:
        damped = covariance + damping * mean[:, np.newaxis, np.newaxis] * np.eye(taps)
        try:
            lower = np.linalg.cholesky(np.linalg.inv(damped))
        except np.linalg.LinAlgError:
            damping *= 10
            if not np.isfinite(damping):
                raise
        else:
            return np.asarray(damped, np.float64), np.asarray(lower.transpose(0, 2, 1), np.float64)


def _spread(
    rows: NDArray[np.float64], factor: NDArray[np.float64], largest: int
) -> NDArray[np.float64]:
    """One weight after the other; each error goes on to the following weights."""
    left, rounded = rows.copy(), np.empty_like(rows)
    taps = rows.shape[2]
    for start in range(0, taps, _BLOCK):
        stop = min(start + _BLOCK, taps)
        errors = np.empty_like(rows[:, :, start:stop])
        for tap in range(start, stop):
            exact = left[:, :, tap]
            whole = np.clip(np.rint(exact), -largest, largest)
            whole[rows[:, :, tap] == 0] = 0
            rounded[:, :, tap] = whole
            error = (exact - whole) / factor[:, tap, tap, np.newaxis]
            left[:, :, tap:stop] -= error[:, :, np.newaxis] * factor[:, np.newaxis, tap, tap:stop]
            errors[:, :, tap - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return rounded


def _descended(
    rows: NDArray[np.float64],
    rounded: NDArray[np.float64],
    covariance: NDArray[np.float64],
    largest: int,
) -> NDArray[np.float64]:
    """Coordinate descent over whole numbers from ``rounded``."""
    rounded = rounded.copy()
    slope = (rounded - rows) @ covariance
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    for _ in range(_SWEEPS):
        moved = False
        for tap in range(rows.shape[2]):
            step = np.rint(-slope[:, :, tap] / variances[:, np.newaxis, tap])
            after = np.clip(rounded[:, :, tap] + step, -largest, largest)
            after[rows[:, :, tap] == 0] = 0
            step = after - rounded[:, :, tap]
            if step.any():
                moved = True
                rounded[:, :, tap] = after
                slope += step[:, :, np.newaxis] * covariance[:, np.newaxis, tap]
        if not moved:
            break
    return rounded
