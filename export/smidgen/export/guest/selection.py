"""Which kernels are pruned or clustered: those that make the file large."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.guest.room import tf_keras

_SMALL_SHARE = 0.03
"""Of all weights in such kernels, which the smallest kernels together may hold: they are the first
ones of a network, whose errors go through all others, and they save next to nothing."""


def large_kernels(guest: Any) -> list[tuple[str, NDArray[np.float32]]]:
    """Layer names and kernels ``(..., in, out) float32`` of a tf_keras network, in its order.

    Those of convolutions and dense layers; depthwise kernels are few and sensitive.
    """
    kinds = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)
    kernels = [
        (layer.name, layer.get_weights()[0])
        for layer in guest.layers
        if isinstance(layer, kinds) and not _is_special(layer)
    ]
    sizes = np.sort([kernel.size for _, kernel in kernels])
    is_small = np.cumsum(sizes) <= _SMALL_SHARE * sizes.sum()
    largest_small = sizes[is_small][-1] if is_small.any() else 0
    return [(name, kernel) for name, kernel in kernels if kernel.size > largest_small]


def _is_special(layer: Any) -> bool:
    layers = tf_keras.layers
    return isinstance(layer, (layers.DepthwiseConv2D, layers.Conv2DTranspose)) or (
        getattr(layer, "groups", 1) > 1
    )
