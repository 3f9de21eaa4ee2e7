"""Freezing by the name of a block, and cutting a network in two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.runtime.errors import SchemaError
from smidgen.train.backend import select_backend
from smidgen.train.models.backbones import BACKBONES, BackboneName
from smidgen.train.recipe import ModelRecipe

select_backend("tensorflow")

import keras  # noqa: E402

from smidgen.train.models.blocks import (  # noqa: E402
    blocks_of,
    cut,
    freeze_boundary,
    frozen_layers,
)
from smidgen.train.models.network import build  # noqa: E402

Enliven = Callable[..., np.ndarray]
BOUNDARIES: dict[BackboneName, str] = {
    "efficientnet-lite0": "block_12_add",
    "efficientnet-b0": "block4c_add",
    "efficientnetv2-b0": "block4c_add",
    "resnet50": "conv4_block6_out",
    "vgg16": "block4_pool",
    "inception-v3": "mixed7",
    "xception": "add_10",
    "mobilenet-v2": "block_12_add",
    "mobilenet-v3-small": "expanded_conv_7_add",
}
QUICK = ("efficientnet-lite0", "efficientnet-b0", "vgg16", "xception", "mobilenet-v3-small")
TWO = ModelRecipe(backbone="mobilenet-v2", ensemble=("mobilenet-v3-small",), weights="none")


def of(name: BackboneName) -> ModelRecipe:
    return ModelRecipe(backbone=name)


def built(name: BackboneName) -> Any:
    size = BACKBONES[name].smallest_image_size
    return build(ModelRecipe(backbone=name, weights="none"), 3, size)


def check_cut(network: Any, boundary: str, enliven: Enliven) -> None:
    """``upper(lower(x)) == network(x)``; and not for another x."""
    x = np.random.default_rng(1).normal(size=(4, *network.input_shape[1:])).astype(np.float32)
    expected = enliven(network, x)
    parts = cut(network, boundary)
    assert parts is not None
    lower, upper = parts
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(np.asarray(upper(lower(x))), expected, **close)
    assert not np.allclose(np.asarray(upper(lower(x[::-1]))), expected, **close)
    shared = {id(weight) for weight in network.weights}
    assert {id(weight) for weight in (*lower.weights, *upper.weights)} == shared
    assert len(lower.weights) + len(upper.weights) == len(network.weights)
    below = {id(w) for layer in frozen_layers(network, boundary) for w in layer.weights}
    assert {id(weight) for weight in lower.weights} == below


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in BOUNDARIES],
)
def test_the_tables_block_is_a_cut(name: BackboneName, enliven: Enliven) -> None:
    network = built(name)
    boundary = freeze_boundary(network, "auto", of(name))
    assert boundary == BOUNDARIES[name]
    check_cut(network, boundary, enliven)


def test_an_ensemble_is_cut_at_its_features(tmp_path: Path, enliven: Enliven) -> None:
    network = build(TWO, 3, 64)
    assert freeze_boundary(network, "all", TWO) == "features"
    check_cut(network, "features", enliven)
    assert cut(network, "mobilenet-v2_pool") is None
    network.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in again.layers] == [layer.name for layer in network.layers]
    with pytest.raises(SchemaError, match=r"with model\.ensemble: .*; allowed auto, all, none"):
        freeze_boundary(network, "block_12", TWO)


def test_names_of_blocks_end_before_a_digit() -> None:
    network = built("mobilenet-v2")
    model = of("mobilenet-v2")
    assert freeze_boundary(network, "block_1", model) == "block_1_project_BN"
    assert freeze_boundary(network, "block_10", model) == "block_10_project_BN"
    assert freeze_boundary(network, "block_12_depthwise", model) == "block_12_depthwise_relu"
    assert freeze_boundary(network, "all", model) == "pool"
    assert freeze_boundary(network, "none", model) is None
    assert frozen_layers(network, None) == []
    names = [layer.name for layer in frozen_layers(network, "block_1_project_BN")]
    assert names[0] == "image"
    assert names[-1] == "block_1_project_BN"
    assert not [name for name in names if name.startswith("block_2")]


def test_random_weights_are_not_frozen_by_themselves() -> None:
    network = built("mobilenet-v2")
    model = ModelRecipe(backbone="mobilenet-v2", weights="none")
    assert freeze_boundary(network, "auto", model) is None
    assert freeze_boundary(network, "block_12", model) == "block_12_add"


def test_inside_a_residual_there_is_no_cut() -> None:
    network = built("mobilenet-v2")
    boundary = freeze_boundary(network, "block_12_depthwise", of("mobilenet-v2"))
    assert boundary is not None
    assert cut(network, boundary) is None
    frozen = {layer.name for layer in frozen_layers(network, boundary)}
    assert "block_12_expand" in frozen
    assert "block_12_project" not in frozen


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("efficientnet-lite0", 16, "block_00", "block_15"),
        ("efficientnet-b0", 16, "block1a", "block7a"),
        ("resnet50", 16, "conv2_block1", "conv5_block3"),
        ("inception-v3", 11, "mixed0", "mixed10"),
        ("mobilenet-v3-small", 11, "expanded_conv", "expanded_conv_10"),
    ],
)
def test_blocks_in_order(name: BackboneName, count: int, first: str, last: str) -> None:
    blocks = blocks_of(built(name))
    assert (len(blocks), blocks[0], blocks[-1]) == (count, first, last)


@pytest.mark.parametrize("wrong", ["block_99", "blok", "block_", "logits", ""])
def test_an_unknown_block_is_told_with_the_known_ones(wrong: str) -> None:
    network = built("efficientnet-lite0")
    with pytest.raises(
        SchemaError, match="allowed auto, all, none, or one of block_00, block_01"
    ) as it:
        freeze_boundary(network, wrong, of("efficientnet-lite0"))
    assert "\n" not in str(it.value)


def test_numbered_names_do_not_depend_on_what_was_built_before() -> None:
    keras.layers.Conv2D(1, 1)
    first = [layer.name for layer in built("xception").layers]
    assert first == [layer.name for layer in built("xception").layers]
    assert {"conv2d", "conv2d_3", "batch_normalization_3", "add_11"} <= set(first)
    assert "conv2d_4" not in first
