"""From pooled features to logits; and a network that is done training, made ready to be saved.

Head layers are named ``head_...`` (``dropout`` in the linear head), the last one ``logits``.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from smidgen.train.recipe import ModelRecipe

HEAD_LAYERS = frozenset(
    {
        "dropout",
        "head_dense",
        "head_leaky_relu",
        "head_relu",
        "head_batch_norm",
        "head_batch_norm_1",
        "head_batch_norm_2",
        "head_dropout_1",
        "head_dropout_2",
        "logits",
    }
)
_MLP_UNITS = 256
_DROPOUT_MLP_UNITS = 128
_DROPOUT_MLP_SHARE = 0.5


def logits_of(features: Any, model: ModelRecipe, classes: int) -> Any:
    """The head of ``model`` on the Keras tensor ``features`` ``(N, F)``.

    Returns:
        The Keras tensor ``(N, classes) float32``, in mixed precision too; ``(N, 1)`` where the
        output is binary: the logit of the second class.
    """
    layers = keras.layers
    x = features
    if model.head == "linear":
        x = layers.Dropout(model.dropout, name="dropout")(x)
    elif model.head == "mlp":
        x = layers.Dense(_MLP_UNITS, name="head_dense")(x)
        x = layers.LeakyReLU(name="head_leaky_relu")(x)
        x = layers.BatchNormalization(name="head_batch_norm")(x)
    else:
        x = layers.BatchNormalization(name="head_batch_norm_1")(x)
        x = layers.Dropout(_DROPOUT_MLP_SHARE, name="head_dropout_1")(x)
        x = layers.Dense(_DROPOUT_MLP_UNITS, name="head_dense")(x)
        x = layers.ReLU(name="head_relu")(x)
        x = layers.BatchNormalization(name="head_batch_norm_2")(x)
        x = layers.Dropout(_DROPOUT_MLP_SHARE, name="head_dropout_2")(x)
    units = 1 if model.output == "binary" else classes
    logits = layers.Dense(units, kernel_initializer="zeros", dtype="float32", name="logits")
    return logits(x)


def deployable(network: Any) -> Any:
    """``network`` as it is saved: float32 throughout, and one logit for each class.

    One logit ``z`` of a binary output becomes ``(0, z)``, so that softmax over it is
    ``(1 - sigmoid(z), sigmoid(z))``. The network itself where there is nothing to change, else a
    copy with its weights.
    """
    is_binary = network.output_shape[-1] == 1
    if not is_binary and all(_is_float32(layer) for layer in network.layers):
        return network

    def new_layer(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Layer):
            config["dtype"] = "float32"
        if is_binary and layer.name == "logits":
            config["units"] = 2
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=new_layer)
    for layer in network.layers:
        arrays = layer.get_weights()
        if is_binary and layer.name == "logits":
            arrays = [np.concatenate([np.zeros_like(array), array], axis=-1) for array in arrays]
        copy.get_layer(layer.name).set_weights(arrays)
    return copy


def one_logit(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Kernel ``(F, 2)`` and bias ``(2,)`` as those of the one logit that says the same."""
    return [array[..., 1:] - array[..., :1] for array in arrays]


def _is_float32(layer: Any) -> bool:
    policy = layer.dtype_policy
    return bool(policy.compute_dtype == policy.variable_dtype == "float32")
