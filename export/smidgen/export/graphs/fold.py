"""Folding BatchNorm into the convolution before it, exactly, on a Keras 3 functional model.

At inference ``BN(conv(x)) = conv'(x)`` with ``kernel' = kernel * s``, ``bias' = (bias - mean) * s +
beta``, ``s = gamma / sqrt(variance + epsilon)``, per output channel. Done here once, so that both
file formats and both quantizers start from the same graph without BatchNorm. Dropout and other
layers that do nothing at inference are taken out on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import FoldError
from smidgen.export.tensorflow_backend import keras

_IDLE_AT_INFERENCE = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
)


@dataclass(frozen=True)
class Folded:
    """A model with equal outputs and its BatchNorms folded; ``kept``: those left, and why."""

    model: Any
    folded: int
    kept: tuple[str, ...]


def fold_batch_norms(model: Any) -> Folded:
    """Fold each BatchNorm of a functional ``model`` whose input is a linear convolution of its own.

    The outputs are equal but for float32 rounding. A BatchNorm after anything else (or after a
    convolution with an activation, another consumer, or several uses) stays as a layer.

    Raises:
        FoldError: ``model`` is not a functional Keras 3 model.
    """
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise FoldError(
            f"{type(model).__name__} is not a functional Keras model: build it with keras.Model("
            "inputs, outputs)"
        )
    partners, kept = _partners(model)
    twin = _clone(model, partners)
    for layer in model.layers:
        if layer.name in partners:
            twin.get_layer(layer.name).set_weights(_folded_weights(layer, partners[layer.name]))
        elif layer.weights and layer.name not in {norm.name for norm in partners.values()}:
            twin.get_layer(layer.name).set_weights(layer.get_weights())
    return Folded(model=twin, folded=len(partners), kept=kept)


def _partners(model: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The BatchNorm that follows each foldable layer, by that layer's name, and what is kept."""
    uses = _use_counts(model)
    partners: dict[str, Any] = {}
    kept: list[str] = []
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        before = _producer(layer.input) if len(_inbound_nodes(layer)) == 1 else None
        reason = _why_not(layer, before, uses)
        if reason:
            kept.append(f"{layer.name}: {reason}")
        else:
            partners[before.name] = layer  # type: ignore[union-attr]
    return partners, tuple(kept)


def _why_not(norm: Any, before: Any, uses: Counter[str]) -> str:
    """Why ``norm`` cannot be folded into the layer ``before`` it; empty where it can."""
    foldable = (
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
        keras.layers.SeparableConv2D,
        keras.layers.Dense,
    )
    if before is None:
        return "it is used several times"
    if not isinstance(before, foldable) or isinstance(before, keras.layers.Conv2DTranspose):
        return f"its input comes from {type(before).__name__}, not from a convolution"
    axis = norm.axis if isinstance(norm.axis, int) else norm.axis[0]
    obstacles = {
        f"{before.name} has an activation of its own": (
            before.activation is not keras.activations.linear
        ),
        f"the output of {before.name} is used elsewhere too": (
            uses[before.name] != 1 or len(_inbound_nodes(before)) != 1
        ),
        f"{before.name} is not channels_last": (
            getattr(before, "data_format", "channels_last") != "channels_last"
        ),
        f"it normalises axis {axis}, not the channels": (
            axis not in (-1, len(norm.input.shape) - 1)
        ),
    }
    return next((reason for reason, is_so in obstacles.items() if is_so), "")


def _folded_weights(layer: Any, norm: Any) -> list[NDArray[np.float32]]:
    """``[kernel', bias']`` of ``layer`` with ``norm`` folded in, computed in float64.

    Of a separable convolution's two kernels, the second one: it makes the output channels.
    """
    arrays = layer.get_weights()
    channels = int(norm.moving_mean.shape[0])
    bias = np.asarray(arrays.pop(), np.float64) if layer.use_bias else np.zeros(channels)
    *untouched, last = arrays
    kernel = np.asarray(last, np.float64)
    mean = np.asarray(norm.moving_mean.numpy(), np.float64)
    variance = np.asarray(norm.moving_variance.numpy(), np.float64)
    scale = np.asarray(norm.gamma.numpy(), np.float64) if norm.scale else np.ones(channels)
    beta = np.asarray(norm.beta.numpy(), np.float64) if norm.center else np.zeros(channels)
    factor = scale / np.sqrt(variance + norm.epsilon)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = kernel * factor.reshape(kernel.shape[2:])  # (height, width, in, multiplier)
    else:
        kernel = kernel * factor
    bias = (bias - mean) * factor + beta
    return [*untouched, kernel.astype(np.float32), bias.astype(np.float32)]


def _clone(model: Any, partners: dict[str, Any]) -> Any:
    """The functional graph again: convolutions with a bias, folded norms and idle layers gone."""
    gone = {norm.name for norm in partners.values()}
    gone |= {layer.name for layer in model.layers if isinstance(layer, _IDLE_AT_INFERENCE)}

    def new_layer(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in partners:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def new_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in gone else layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=new_layer, call_function=new_call)


def _use_counts(model: Any) -> Counter[str]:
    """How many times the output of each operation is taken, model outputs included."""
    uses: Counter[str] = Counter()
    for operation in model.operations:
        for node in _inbound_nodes(operation):
            uses.update(_producer(tensor).name for tensor in node.input_tensors)
    uses.update(_producer(tensor).name for tensor in keras.tree.flatten(model.outputs))
    return uses


def _inbound_nodes(operation: Any) -> Sequence[Any]:
    return operation._inbound_nodes  # type: ignore[no-any-return]


def _producer(tensor: Any) -> Any:
    return tensor._keras_history.operation
