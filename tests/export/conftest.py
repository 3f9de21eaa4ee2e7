"""A small network in the manner of EfficientNet-Lite, with BatchNorm statistics that matter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


@pytest.fixture(scope="session")
def small_network() -> Callable[..., Any]:
    """A function: ``(size, classes, seed)`` to a Keras model with logits."""
    return _small_network


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory) -> Path:
    """60 colourful PNG files of 48 x 48 pixels, each different."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(3)
    for number in range(60):
        cells = random.integers(0, 256, (1 + number % 5, 1 + number % 5, 3)).astype(np.uint8)
        image = Image.fromarray(cells).resize((48, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def float_model(picture_folder, small_network) -> Any:
    """A FloatModel of four classes with 20 pictures for calibration and 40 held out."""
    from smidgen.export.pictures import scan_unlabelled
    from smidgen.export.source import ChannelNormalization, FloatModel
    from smidgen.runtime.manifest import Preprocessing

    pictures = scan_unlabelled(picture_folder)
    network = small_network()
    return FloatModel(
        name="toy",
        source="toy run",
        backbone="toy",
        labels=("ash", "beech", "cedar", "date palm"),
        preprocessing=Preprocessing(width=32, height=32),
        normalization=ChannelNormalization.of(127.0, 128.0),
        load=lambda: network,
        weights_sha256="1" * 64,
        data_sha256="2" * 64,
        calibration_pool=pictures[:20],
        held_out=pictures[20:],
    )


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
    cells = random.integers(0, 256, (64, 2, 2, 3)).repeat(8, 1).repeat(8, 2)
    size = model.input.shape[1] // 16
    pixels = cells.repeat(size, 1).repeat(size, 2).astype(np.float32)
    head = model.get_layer("logits")
    head.set_weights([random.normal(0, 1, weight.shape) for weight in head.get_weights()])
    logits = np.asarray(model((pixels - 127) / 128, training=False))
    kernel, bias = head.get_weights()
    spread = logits.std(axis=0) / 1.5
    head.set_weights([kernel / spread, (bias - logits.mean(axis=0)) / spread])
