"""Heads: their layers, and the network that is saved in place of a binary or bfloat16 one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.train.backend import select_backend
from smidgen.train.recipe import ModelRecipe

select_backend("tensorflow")

import keras  # noqa: E402

from smidgen.train.models.heads import HEAD_LAYERS, deployable, logits_of  # noqa: E402
from smidgen.train.models.network import build  # noqa: E402

Enliven = Callable[..., np.ndarray]
LAYERS = {
    "linear": ["dropout", "logits"],
    "mlp": ["head_dense", "head_leaky_relu", "head_batch_norm", "logits"],
    "dropout-mlp": [
        "head_batch_norm_1", "head_dropout_1", "head_dense", "head_relu", "head_batch_norm_2",
        "head_dropout_2", "logits",
    ],
}  # fmt: skip
BINARY = ModelRecipe(backbone="mobilenet-v2", output="binary", head="mlp", weights="none")


def head(model: ModelRecipe, classes: int = 3) -> Any:
    features = keras.Input((20,), name="features")
    return keras.Model(features, logits_of(features, model, classes))


def with_random_weights(network: Any) -> Any:
    random = np.random.default_rng(3)
    network.set_weights([np.abs(random.normal(0.3, 0.2, w.shape)) for w in network.get_weights()])
    return network


def pixels(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_a_head(name: Any) -> None:
    network = head(ModelRecipe(head=name))
    assert [layer.name for layer in network.layers[1:]] == LAYERS[name]
    assert set(LAYERS[name]) <= HEAD_LAYERS
    assert network.output_shape == (None, 3)
    units = {"linear": 20, "mlp": 256, "dropout-mlp": 128}[name]
    assert network.get_layer("logits").kernel.shape == (units, 3)


def test_a_dropout_mlp_computes_what_it_says() -> None:
    network = with_random_weights(head(ModelRecipe(head="dropout-mlp")))
    x = np.random.default_rng(1).normal(size=(5, 20)).astype(np.float32)
    g1, b1, kernel, bias, g2, b2, last, last_bias, m1, v1, m2, v2 = (
        np.asarray(w) for w in (*network.trainable_weights, *network.non_trainable_weights)
    )
    y = (x - m1) / np.sqrt(v1 + 1e-3) * g1 + b1
    y = np.maximum(y @ kernel + bias, 0)
    y = (y - m2) / np.sqrt(v2 + 1e-3) * g2 + b2
    np.testing.assert_allclose(np.asarray(network(x)), y @ last + last_bias, rtol=1e-4)


def test_a_deployable_binary_network_says_the_same(tmp_path: Path, enliven: Enliven) -> None:
    network = build(BINARY, 2, 32)
    z = enliven(network, pixels())[:, 0]
    saved = deployable(network)
    assert saved.output_shape == (None, 2)
    logits = np.asarray(saved(pixels()))
    np.testing.assert_array_equal(logits[:, 0], 0)
    shares = np.asarray(keras.ops.softmax(logits))[:, 1]
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-z.astype(np.float64))), rtol=1e-5)
    assert np.ptp(shares) > 0.1

    saved.save(tmp_path / "model.keras")
    model = ModelRecipe(
        backbone="mobilenet-v2", output="binary", head="mlp", weights=str(tmp_path / "model.keras")
    )
    again = build(model, 2, 32)
    np.testing.assert_allclose(np.asarray(again(pixels()))[:, 0], z, rtol=1e-5)


def test_a_softmax_network_in_float32_is_deployable_as_it_is() -> None:
    network = build(ModelRecipe(backbone="mobilenet-v2", weights="none"), 2, 32)
    assert deployable(network) is network


def test_mixed_precision_ends_in_float32(enliven: Enliven) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build(ModelRecipe(backbone="mobilenet-v3-small", weights="none"), 3, 32)
    finally:
        keras.config.set_dtype_policy("float32")
    halved = enliven(network, pixels())
    assert network.get_layer("conv").compute_dtype == "bfloat16"
    assert network.output.dtype == "float32"
    saved = deployable(network)
    assert saved is not network
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}
    plain = build(ModelRecipe(backbone="mobilenet-v3-small", weights="none"), 3, 32)
    plain.set_weights(network.get_weights())
    expected = np.asarray(plain(pixels()))
    np.testing.assert_allclose(np.asarray(saved(pixels())), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(halved, expected, rtol=1e-4, atol=1e-4)


def test_another_head_keeps_the_backbone(tmp_path: Path) -> None:
    first = build(ModelRecipe(backbone="mobilenet-v2", weights="none"), 3, 32)
    first.save(tmp_path / "model.keras")
    model = ModelRecipe(
        backbone="mobilenet-v2", head="dropout-mlp", weights=str(tmp_path / "model.keras")
    )
    second = build(model, 3, 32)
    for layer in first.layers:
        if layer.weights and layer.name != "logits":
            for left, right in zip(
                layer.get_weights(), second.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(left, right)
