"""Which kernels are pruned or clustered: those that make the file large."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.guest.room import tf_keras

_SMALLEST_SHARE = 1e-3
"""Of all weights in such kernels; a smaller kernel (the first convolution's) is sensitive and
saves nothing."""


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
    smallest = _SMALLEST_SHARE * sum(kernel.size for _, kernel in kernels)
    return [(name, kernel) for name, kernel in kernels if kernel.size >= smallest]


def _is_special(layer: Any) -> bool:
    layers = tf_keras.layers
    return isinstance(layer, (layers.DepthwiseConv2D, layers.Conv2DTranspose)) or (
        getattr(layer, "groups", 1) > 1
    )
