"""One thumbnail laid over another: how much of it does it explain?

Scale and shift come from least squares on the gradients, in a few Gauss-Newton steps (Lucas and
Kanade 1981), for many pairs at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCE_SIDE = 64
"""Width and height of the thumbnails."""

Images = NDArray[np.floating[Any]]

_SIDE = 32
_STEPS = 2
_WORTH_ALIGNING = 0.5
_FARTHEST = 0.05


def explained(first: Images, second: Images) -> Images:
    """How much of ``second`` a scaled and shifted view of ``first`` explains, with gain and offset.

    Args:
        first, second: grey thumbnails ``(n, 64, 64) float32``, 0..255.

    Returns:
        ``(n,) float32``: squared correlation on 32 x 32 pixels, negative where the correlation is;
        the view is at most 5 % smaller, larger or shifted. Pairs below 0.5 as they are, are left.
    """
    whole = _views(np.zeros(1, np.float32), np.zeros(1, np.float32))
    wanted = _centred(whole @ second @ whole.transpose(0, 2, 1))
    best = _squared_correlation(_centred(whole @ first @ whole.transpose(0, 2, 1)), wanted)
    left = np.flatnonzero(best >= _WORTH_ALIGNING)
    moves = np.zeros((len(left), 4), np.float32)  # scale x, scale y, shift x, shift y
    for _ in range(_STEPS if len(left) else 0):
        moves = _moved(first[left], wanted[left], moves)
        best[left] = np.maximum(
            best[left], _squared_correlation(_centred(_seen(first[left], moves)), wanted[left])
        )
    return best


def _moved(first: Images, wanted: Images, moves: Images) -> Images:
    """``moves`` after one Gauss-Newton step towards ``wanted``."""
    seen = _seen(first, moves)
    at = _pixel_centres()
    down, across = (np.asarray(part) * (_SIDE / 2) for part in np.gradient(seen, axis=(1, 2)))
    columns = [seen, across * at[None, None, :], down * at[None, :, None], across, down]
    table = np.stack([_centred(column) for column in columns], axis=2).astype(np.float64)
    normal = table.transpose(0, 2, 1) @ table
    ridge = 1e-6 * (1.0 + np.trace(normal, axis1=1, axis2=2))
    normal += ridge[:, None, None] * np.eye(len(columns))
    right = table.transpose(0, 2, 1) @ wanted[:, :, None]
    answer = np.linalg.solve(normal, right)[:, :, 0]
    gain = np.where(answer[:, :1] > 0.1, answer[:, :1], np.inf)  # an inverted view stays put
    return np.clip(moves + answer[:, 1:] / gain, -_FARTHEST, _FARTHEST).astype(np.float32)


def _seen(thumbnails: Images, moves: Images) -> Images:
    rows, columns = _views(moves[:, 1], moves[:, 3]), _views(moves[:, 0], moves[:, 2])
    seen: Images = rows @ thumbnails @ columns.transpose(0, 2, 1)
    return seen


def _views(scale: Images, shift: Images) -> Images:
    """Antialiased resampling of an axis from 64 to 32 pixels: ``(n, 32, 64) float32``."""
    at = _pixel_centres()[None] * (1 + scale[:, None]) + shift[:, None]
    at = np.clip((at + 1) * (SOURCE_SIDE / 2) - 0.5, 0, SOURCE_SIDE - 1)
    distance = np.abs(at[:, :, None] - np.arange(SOURCE_SIDE, dtype=np.float32))
    weights = np.maximum(0, 1 - distance * (_SIDE / SOURCE_SIDE))
    return np.asarray(weights / weights.sum(axis=2, keepdims=True), np.float32)


def _pixel_centres() -> Images:
    return (np.arange(_SIDE, dtype=np.float32) + 0.5) * (2 / _SIDE) - 1


def _centred(images: Images) -> Images:
    flat = images.reshape(len(images), images.shape[1] * images.shape[2])
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _squared_correlation(one: Images, other: Images) -> Images:
    product = (one * other).sum(axis=1)
    power = (one**2).sum(axis=1) * (other**2).sum(axis=1)
    return np.asarray(product * np.abs(product) / np.maximum(power, 1e-12), np.float32)
