"""A small network in the manner of EfficientNet-Lite, with BatchNorm statistics that matter."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@pytest.fixture(scope="session")
def small_network() -> Callable[..., Any]:
    """A function: ``(size, classes, seed)`` to a Keras model with logits."""
    return _small_network


def _small_network(size: int = 32, classes: int = 4, seed: int = 0) -> Any:
    """Normalised ``(N, size, size, 3) float32`` to logits ``(N, classes) float32``."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    image = keras.Input((size, size, 3), name="image")
    x = _conv(image, 16, 3, strides=2, activate=True)
    shortcut = _conv(x, 8, 1, activate=False)
    x = _conv(shortcut, 32, 1, activate=True)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(epsilon=1e-3)(x))
    x = _conv(x, 8, 1, activate=False)
    x = layers.Add()([shortcut, x])
    x = _conv(x, 32, 1, activate=True)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(classes, name="logits")(x))
    _randomise(model, seed)
    return model


def _conv(x, filters, kernel, *, strides=1, activate):
    from keras import layers

    x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(epsilon=1e-3)(x)
    return layers.ReLU(6.0)(x) if activate else x


def _randomise(model: Any, seed: int) -> None:
    from keras import layers

    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [
                    random.uniform(0.5, 1.5, shape),
                    random.normal(0.3, 0.3, shape),
                    random.normal(0, 0.2, shape),
                    random.uniform(0.1, 1.0, shape),
                ]
            )
        elif layer.name == "logits":
            kernel, bias = layer.get_weights()
            layer.set_weights([random.normal(0, 1.0, kernel.shape), bias])
