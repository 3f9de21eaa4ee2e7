"""Networks go to tf_keras and back with equal answers; what cannot go is named."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from smidgen.export.errors import CopyError


@pytest.fixture(scope="module")
def copier() -> Any:
    from smidgen.export.guest import copier

    return copier


def varied(side: int = 16) -> Any:
    """One of everything: nested networks, activations of all kinds, operators, shared layers."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    inner_in = keras.Input((side, side, 8))
    inner = layers.Conv2D(8, 3, padding="same", activation="relu6", name="conv")(inner_in)
    inner = keras.Model(inner_in, layers.BatchNormalization()(inner), name="inner")
    image = keras.Input((side, side, 3), name="image")
    x = layers.Rescaling(0.5, 0.1)(image)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
    x = layers.Conv2D(8, 3, padding="same", activation=keras.activations.silu, name="conv")(x)
    x = inner(inner(x))
    x = layers.SeparableConv2D(8, 3, padding="same", activation="swish")(x)
    gate = layers.Dense(8, activation="sigmoid")(keras.ops.mean(x, axis=(1, 2), keepdims=True))
    x = layers.Multiply()([x, gate])
    x = x + keras.ops.relu6(x + 3.0) * np.float32([1 / 6]) - keras.ops.hard_silu(x)
    x = layers.Activation("hard_sigmoid")(layers.LeakyReLU(0.2)(x))
    x = layers.DepthwiseConv2D(3, activation="hard_silu", depth_multiplier=2)(x)
    x = layers.Activation("gelu")(layers.ZeroPadding2D(1)(x))
    x = layers.PReLU(shared_axes=[1, 2])(layers.MaxPooling2D()(x))
    x = keras.ops.reshape(layers.AveragePooling2D(2)(x), (-1, 16 * (side // 4) ** 2))
    x = layers.LayerNormalization()(layers.Dropout(0.5)(x))
    both = layers.Concatenate()([layers.Dense(8, "elu")(x), layers.Dense(8, "tanh")(x)])
    model = keras.Model(image, layers.Dense(5, name="logits")(both))
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.2, 1, w.shape) * w.std() + w for w in model.get_weights()])
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean", "alpha"):
            weight.assign(random.normal(0, 0.3, weight.shape))
    return model


def test_one_of_everything_is_copied_there_and_back(copier):
    network = varied()
    copy = copier.copy_to_guest(network)
    assert sum(len(layer.get_weights()) for layer in copy.model.layers) == len(
        network.get_weights()
    ) - len([w for w in network.weights if w.name == "seed_generator_state"])
    assert len({layer.name for layer in copy.model.layers}) == len(copy.model.layers)
    weights = copy.model.get_weights()
    copy.model.set_weights([1.01 * weight for weight in weights])
    back = copy.give_back(copy.model, network)
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    before, after = np.asarray(network(pixels)), np.asarray(back(pixels))
    largest = np.abs(before).max()
    assert np.abs(after - np.asarray(copy.model(pixels))).max() <= 1e-5 * largest
    assert np.abs(after - before).max() > 1e-3 * largest, "the weights came back"
    assert back.get_layer("inner").get_layer("conv").activation is not None


def test_small_network_is_equal_and_a_wrong_weight_is_seen(copier, small_network):
    network = small_network()
    copy = copier.copy_to_guest(network)
    norms = [x for x in copy.model.layers if type(x).__name__ == "BatchNormalization"]
    assert all(norm.fused for norm in norms), "the check leaves the fused operation as it was"
    copier.check_equal(network, copy.model)
    kernel = copy.model.layers[1].kernel
    kernel.assign(kernel * (1 + 1e-3))
    with pytest.raises(CopyError, match="answers otherwise"):
        copier.check_equal(network, copy.model)


def custom_layer() -> Any:
    import keras

    class Odd(keras.layers.Layer):
        def call(self, x):
            return x * 2

    return Odd(name="odd")


def refused() -> dict[str, tuple[Any, str]]:
    import keras

    layers = keras.layers
    return {
        "custom class": (custom_layer(), "layer odd (Odd) cannot be copied"),
        "custom activation": (
            layers.Dense(3, activation=keras.ops.square, name="strange"),
            "layer strange (Dense) cannot be copied to tf_keras: its activation",
        ),
        "unknown layer": (layers.RandomFlip(name="flip"), "RandomFlip has no counterpart"),
        "half precision": (layers.ReLU(dtype="mixed_bfloat16", name="short"), "bfloat16"),
        "operator": (lambda x: keras.ops.cumsum(x, axis=1), "the operator Cumsum is not known"),
    }


@pytest.mark.parametrize(
    "name", ["custom class", "custom activation", "unknown layer", "half precision", "operator"]
)
def test_a_layer_that_cannot_be_copied_is_named(copier, name):
    import keras

    layer, message = refused()[name]
    image = keras.Input((8, 8, 3))
    network = keras.Model(image, layer(image))
    with pytest.raises(CopyError, match=re.escape(message)) as raised:
        copier.copy_to_guest(network)
    assert "\n" not in str(raised.value)
    assert "leave sparsity" in str(raised.value)


def test_what_is_no_functional_network_is_refused(copier):
    import keras

    class Subclassed(keras.Model):
        pass

    with pytest.raises(CopyError, match="not a functional Keras network"):
        copier.copy_to_guest(Subclassed())


def test_a_layer_that_is_gone_is_named(copier, small_network):
    from smidgen.export.guest.room import tf_keras

    network = small_network()
    copy = copier.copy_to_guest(network)
    shorter = tf_keras.Model(copy.model.inputs, copy.model.layers[-2].output)
    with pytest.raises(CopyError, match="layer logits is not in the tf_keras network"):
        copy.give_back(shorter, network)


def test_importing_leaves_the_environment_as_it_was(copier):  # noqa: ARG001
    import os

    assert "TF_USE_LEGACY_KERAS" not in os.environ


BACKBONES = ("efficientnet-lite0", "efficientnet-b0", "efficientnetv2-b0", "resnet50", "vgg16",
             "inception-v3", "xception", "mobilenet-v2", "mobilenet-v3-small", "two")  # fmt: skip
HEADS = {"mobilenet-v2": "dropout-mlp", "mobilenet-v3-small": "mlp"}


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_family_of_backbones_is_copied(name, copier, enliven, patches):
    from smidgen.train.models.backbones import BACKBONES as TABLE
    from smidgen.train.models.network import build
    from smidgen.train.recipe import ModelRecipe

    ensemble = ("efficientnet-lite0",) if name == "two" else ()
    backbone = "mobilenet-v2" if name == "two" else name
    model = ModelRecipe(
        backbone=backbone, head=HEADS.get(name, "linear"), ensemble=ensemble, weights="none"
    )
    side = TABLE[backbone].smallest_image_size + 32
    network = build(model, 4, side)
    enliven(network, patches(8, side) / np.float32(128) - 1)
    copy = copier.copy_to_guest(network)
    copy.give_back(copy.model, network)
