"""A small network with every operator that our int8 TFLite files hold, as files of two kinds."""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE = 33
"""Odd, so that TF's padding of stride 2 is not the same on both sides of even layers."""


def pictures(count: int, side: int = SIDE) -> np.ndarray:
    """``(count, side, side, 3) uint8``: patches around one random colour, with little noise."""
    random = np.random.default_rng(11)
    place = np.arange(side) * 4 // side
    patches = random.uniform(10, 245, (count, 1, 1, 3)) + random.normal(0, 50, (count, 4, 4, 3))
    colours = patches[:, place][:, :, place]
    return np.clip(np.round(colours + random.normal(0, 8, colours.shape)), 0, 255).astype(np.uint8)


class Pictures:
    """Calibration by ``pictures``: two pixels of the first one are 0 and 255."""

    def __init__(self, side: int = SIDE) -> None:
        self._pixels = pictures(24, side)
        self._pixels[0, 0, 0], self._pixels[0, -1, -1] = 0, 255

    def pixels(self) -> Any:
        return (row[np.newaxis] for row in self._pixels)

    def __len__(self) -> int:
        return len(self._pixels)


def network(activation: str = "hard_silu", side: int = SIDE, classes: int = 5) -> Any:
    """Normalised ``(N, side, side, 3) float32`` to logits."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input((side, side, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = layers.ReLU(6.0)(x)
    x = layers.ZeroPadding2D(((0, 1), (1, 0)))(x)
    x = layers.Conv2D(12, 3, strides=2, padding="valid", activation="relu")(x)
    shortcut = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, strides=1)(shortcut)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Activation(activation)(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(12, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    y = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    x = layers.Add()([x, y])
    x = layers.Concatenate()([layers.ReLU()(x), layers.Conv2D(4, 1)(x)])
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(16, 3, padding="same", dilation_rate=2)(x)
    x = layers.GlobalAveragePooling2D()(layers.LeakyReLU(0.2)(x))
    model = keras.Model(image, layers.Dense(classes, name="logits")(x))
    enliven(model)
    return model


def enliven(model: Any) -> None:
    """Random biases, and a last layer whose logits differ between ``pictures``."""
    random = np.random.default_rng(2)
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
    side = model.input.shape[1]
    head = model.get_layer("logits")
    inputs = (pictures(32, side).astype(np.float32) - 127) / 128
    logits = np.asarray(model(inputs, training=False))
    kernel, bias = head.get_weights()
    spread = logits.std(axis=0) / 1.5
    head.set_weights([kernel / spread, (bias - logits.mean(axis=0)) / spread])


def int8_file(model: Any, side: int = SIDE) -> bytes:
    """The int8 ``.tflite`` of ``model``."""
    from smidgen.export.formats.to_tflite import to_tflite_int8
    from smidgen.export.source import ChannelNormalization

    how = ChannelNormalization.of(127.0, 128.0)
    return to_tflite_int8(model, how, Pictures(side), lambda _: None)  # type: ignore[arg-type]
