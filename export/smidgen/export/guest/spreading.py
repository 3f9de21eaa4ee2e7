"""Kernels whose channels all reach from -1 to 1, with a factor for each channel behind them.

Batch norms are folded first, so that the kernels are those that get quantized. Their channels then
differ in range by a hundred times: 16 values for a whole kernel would leave the small channels
one. Divided by its own largest weight each channel uses all of them; and as int8 codes of a channel
are its weights by its largest one, too, every channel of a kernel has the same 16 codes. That is
what makes the file zip well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.tensorflow_backend import keras

SUFFIX = "_spread"
"""Of the name of that batch norm."""
_EPSILON = 1e-3
"""Of the batch norm that holds a channel's factor and bias; its variance is 1 without it."""


def spread(network: Any, names: Iterable[str]) -> Any:
    """``network`` with a batch norm behind each layer in ``names`` that holds range and bias.

    Args:
        network: functional Keras 3, batch norms folded (``graphs.fold``).
        names: convolutions and dense layers that are used once.

    Returns:
        A network of equal outputs: kernels of these layers ``k / max|k|`` for each output channel,
        no bias; the batch norm has ``gamma = max|k|``, ``beta`` = the bias, mean 0. Folding makes
        the first network of it again, up to rounding.
    """
    chosen = set(names)
    twin = _clone(network, chosen)
    for layer in network.layers:
        if layer.name not in chosen:
            if layer.weights:
                twin.get_layer(layer.name).set_weights(layer.get_weights())
            continue
        kernel, *bias = layer.get_weights()
        ranges = channel_ranges(kernel)
        zeros = np.zeros_like(ranges)
        twin.get_layer(layer.name).set_weights([kernel / ranges])
        twin.get_layer(layer.name + SUFFIX).set_weights(
            [ranges, bias[0] if bias else zeros, zeros, zeros + np.float32(1 - _EPSILON)]
        )
    return twin


def can_be_spread(layer: Any) -> bool:
    """Whether ``spread`` takes this Keras 3 layer: an ordinary convolution or dense layer."""
    if not isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        return False
    is_plain = isinstance(layer, keras.layers.Dense) or (
        layer.groups == 1 and layer.data_format == "channels_last"
    )
    return is_plain and len(layer._inbound_nodes) == 1


def channel_ranges(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest size of a weight in each output channel, ``(out,) float32``; 1 for none."""
    ranges = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    result: NDArray[np.float32] = np.where(ranges > 0, ranges, 1).astype(np.float32)
    return result


def _clone(network: Any, chosen: set[str]) -> Any:
    def new_layer(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in chosen:
            config |= {"use_bias": False, "activation": "linear"}
        return type(layer).from_config(config)

    before = {layer.name: layer for layer in network.layers}

    def new_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        if layer.name not in chosen:
            return output
        norm = keras.layers.BatchNormalization(epsilon=_EPSILON, name=layer.name + SUFFIX)
        output = norm(output)
        function = before[layer.name].activation
        if function is keras.activations.linear:
            return output
        return keras.layers.Activation(function, name=f"{layer.name}_activation")(output)

    return keras.models.clone_model(network, clone_function=new_layer, call_function=new_call)
