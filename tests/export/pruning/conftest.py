from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

SIDE, CLASSES = 16, 5


@pytest.fixture
def block_network() -> Callable[[], Any]:
    """A function to a stem, an MBConv block with squeeze-excite and shortcut, and a dense head.

    Normalised ``(N, 16, 16, 3) float32`` to logits ``(N, 5) float32``; random weights and
    statistics.
    """
    return _block_network


def _block_network() -> Any:
    from keras import Model, layers

    image = layers.Input((SIDE, SIDE, 3), name="image")
    x = layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name="stem_conv")(image)
    x = layers.ReLU(6.0, name="stem_relu6")(layers.BatchNormalization(name="stem_bn")(x))
    x = shortcut = layers.Conv2D(8, 1, name="entry_conv")(x)
    x = layers.Conv2D(24, 1, use_bias=False, name="expand_conv")(x)
    x = layers.Activation("silu", name="expand_silu")(
        layers.BatchNormalization(name="expand_bn")(x)
    )
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise_conv")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.Activation("silu", name="depthwise_silu")(x)
    y = layers.GlobalAveragePooling2D(name="se_pool")(x)
    y = layers.Reshape((1, 1, 24), name="se_reshape")(y)
    y = layers.Conv2D(4, 1, activation="silu", name="se_reduce")(y)
    y = layers.Conv2D(24, 1, activation="sigmoid", name="se_expand")(y)
    x = layers.Multiply(name="se_multiply")([x, y])
    x = layers.Conv2D(8, 1, use_bias=False, name="project_conv")(x)
    x = layers.Add(name="add")([shortcut, layers.BatchNormalization(name="project_bn")(x)])
    x = layers.Conv2D(32, 1, use_bias=False, name="head_conv")(x)
    x = layers.ReLU(6.0, name="head_relu6")(layers.BatchNormalization(name="head_bn")(x))
    x = layers.Dropout(0.2, name="dropout")(layers.GlobalAveragePooling2D(name="pool")(x))
    x = layers.LeakyReLU(name="head_leaky_relu")(layers.Dense(16, name="head_dense")(x))
    x = layers.BatchNormalization(name="head_batch_norm")(x)
    network = Model(image, layers.Dense(CLASSES, name="logits")(x))
    random = np.random.default_rng(1)
    for layer in network.layers:
        arrays = layer.get_weights()
        if isinstance(layer, layers.BatchNormalization):
            arrays = [random.uniform(0.5, 1.5, array.shape) for array in arrays]
        else:
            sizes = [max(1, array[..., 0].size) for array in arrays]
            arrays = [random.normal(0, n**-0.5, a.shape) for n, a in zip(sizes, arrays)]
        layer.set_weights(arrays)
    return network


@pytest.fixture
def images() -> np.ndarray:
    """``(6, 16, 16, 3) float32``, normalised pixels."""
    return np.random.default_rng(2).uniform(-1, 1, (6, SIDE, SIDE, 3)).astype(np.float32)
