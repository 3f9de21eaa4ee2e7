"""Taking channels out of a network: the same graph with fewer filters, all other weights as they
were."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.pruning.dependencies import Dependencies
from smidgen.export.tensorflow_backend import keras

_Mask = NDArray[np.bool_]


def remove_channels(network: Any, dependencies: Dependencies, removed: NDArray[np.int64]) -> Any:
    """A smaller network; ``network`` stays as it is.

    Args:
        network: a functional Keras model.
        dependencies: of ``network``.
        removed: ids of channels out of ``dependencies.groups``, ``(R,) int64``, any order.

    Returns:
        A functional Keras model with the same ends and names of layers. Where the removed channels
        gave nothing (zero behind their activation), it computes the same up to float32 rounding.
    """
    keeps_in = {n: ~np.isin(ids, removed) for n, ids in dependencies.entering.items()}
    keeps_out = {n: ~np.isin(ids, removed) for n, ids in dependencies.leaving.items()}

    def smaller(layer: Any) -> Any:
        config = layer.get_config()
        width = int(keeps_out[layer.name].sum()) if layer.name in keeps_out else None
        if width is not None and "filters" in config:
            config["filters"] = width
        elif width is not None and "units" in config:
            config["units"] = width
        elif width is not None and "target_shape" in config:
            *shape, last = config["target_shape"]
            config["target_shape"] = (*shape, last if last == -1 else width)
        return type(layer).from_config(config)

    twin = keras.models.clone_model(network, clone_function=smaller)
    for layer in network.layers:
        arrays = layer.get_weights()
        if arrays and layer.name in keeps_out:
            arrays = _cut(layer, arrays, keeps_in[layer.name], keeps_out[layer.name])
        if arrays:
            twin.get_layer(layer.name).set_weights(arrays)
    return twin


def _cut(
    layer: Any, arrays: list[NDArray[np.float32]], keep_in: _Mask, keep_out: _Mask
) -> list[NDArray[np.float32]]:
    """The weights of ``layer`` without the channels that go."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [array[keep_out] for array in arrays]
    kernel, *bias = arrays
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = kernel[:, :, keep_in]  # (height, width, in, multiplier)
    else:
        kernel = kernel[..., keep_in, :][..., keep_out]
    return [kernel, *(array[keep_out] for array in bias)]
