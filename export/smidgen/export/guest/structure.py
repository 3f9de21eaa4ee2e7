"""What earlier passes left in the kernels of a network: zeros, few distinct weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.guest.spreading import channel_ranges
from smidgen.export.tensorflow_backend import keras

MOST_VALUES = 256
_FEWEST_ZEROS = 0.01
"""Share of exact zeros above which they are no accident."""

_SAME = 1e-5
"""Weights of a channel by its largest one that are nearer than this are the same value."""


@dataclass(frozen=True)
class Structure:
    """What tuning must leave in the kernels."""

    is_sparse: bool = False
    is_clustered: bool = False


def structure_of(network: Any) -> Structure:
    """The structure of a Keras 3 network, read from its convolutions and dense layers."""
    kernels = [
        layer.get_weights()[0]
        for layer in network.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
    ]
    total = sum(kernel.size for kernel in kernels)
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    few = sum(kernel.size for kernel in kernels if _is_clustered(kernel))
    return Structure(zeros > _FEWEST_ZEROS * total, few > total / 2)


def values_of(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The distinct weights of a kernel ``(..., out)``, each by the largest of its channel,
    ascending; those nearer than 1e-5 count once."""
    values = np.unique(kernel / channel_ranges(kernel))
    first = np.concatenate([[True], np.diff(values) > _SAME])
    distinct: NDArray[np.float32] = values[first]
    return distinct


def _is_clustered(kernel: NDArray[np.float32]) -> bool:
    return len(values_of(kernel)) <= min(MOST_VALUES, kernel.size // 4)
