from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smidgen.export.graphs.readers import SampleImages, covariances_of, inputs_of
from smidgen.export.pruning.dependencies import dependencies_of
from smidgen.export.pruning.surgeon import surgeon, unranked
from smidgen.export.source import ChannelNormalization

NORMALIZATION = ChannelNormalization.of(127.5, 127.5)
PIXELS = np.random.default_rng(3).integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)
IMAGES = SampleImages(PIXELS, NORMALIZATION)


def test_what_others_say_too_matters_less_than_what_is_said_alone(block_network) -> None:
    """Two of three equal channels can go for nearly nothing; the third of them cannot."""
    network = block_network()
    for name in ("stem_bn", "stem_conv"):
        layer = network.get_layer(name)
        arrays = layer.get_weights()
        for array in arrays:
            array[..., 1:3] = array[..., :1]
        layer.set_weights(arrays)
    found = surgeon(network, dependencies_of(network), IMAGES)["stem_conv"]
    equal = np.sort(found[:3])
    assert set(np.argsort(found)[:2]) < {0, 1, 2}
    assert equal[1] < 0.05 * np.median(found)
    assert equal[2] > 10 * equal[1]


def test_a_constant_channel_costs_nothing(block_network) -> None:
    """Its mean goes into the bias of what reads it."""
    network = block_network()
    gamma, *rest = network.get_layer("stem_bn").get_weights()
    gamma[5] = 0.0
    network.get_layer("stem_bn").set_weights([gamma, *rest])
    found = surgeon(network, dependencies_of(network), IMAGES)["stem_conv"]
    assert found.argmin() == 5
    assert found[5] < 0.3 * np.sort(found)[1]  # the damping is what is left


def linear(random: np.random.Generator) -> Any:
    """Mean over positions of a 1x1 convolution with 6 channels, and 2 logits of them."""
    from keras import Input, Model, layers

    image = Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="conv")(image)
    x = layers.Activation("tanh")(x)
    x = layers.GlobalAveragePooling2D()(x)
    network = Model(image, layers.Dense(2, name="logits")(x))
    for layer in network.layers:
        layer.set_weights([random.normal(0, 1, a.shape) for a in layer.get_weights()])
    return network


def test_the_least_important_loses_what_a_fit_without_it_loses() -> None:
    """By hand: the residual of a least-squares fit, times half of Fisher's information."""
    random = np.random.default_rng(1)
    network = linear(random)
    pixels = random.integers(0, 256, (400, 4, 4, 3)).astype(np.uint8)
    images = SampleImages(pixels, NORMALIZATION)
    found = surgeon(network, dependencies_of(network), images)["conv"]
    x = np.concatenate([b[0] for b in inputs_of(network, ["logits"], images)])[:, 0]
    kernel = np.asarray(network.get_layer("logits").kernel, np.float64)
    logits = x @ kernel + np.asarray(network.get_layer("logits").bias)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    fisher = (p * (1 - p)).mean(axis=0)  # expected square of (p - one-hot)
    damped = np.cov(x.T, bias=True)
    damped = damped + 0.01 * np.trace(damped) / 6 * np.eye(6)
    expected = []
    for gone in range(6):
        rest = [other for other in range(6) if other != gone]
        left = damped[gone, gone] - damped[gone, rest] @ np.linalg.solve(
            damped[np.ix_(rest, rest)], damped[rest, gone]
        )
        expected.append(0.5 * (fisher * kernel[gone] ** 2).sum() * left)
    assert found.argmin() == np.argmin(expected)
    assert found.min() == pytest.approx(min(expected), rel=0.1)  # answers are drawn
    assert found.max() > 3 * max(expected), "the last ones have nobody left to stand in"


def test_covariances_are_those_of_the_inputs(block_network) -> None:
    network = block_network()
    found = covariances_of(network, ["head_dense", "project_conv"], IMAGES)
    for index, name in enumerate(found):
        rows = np.concatenate(
            [batch[index] for batch in inputs_of(network, list(found), IMAGES)]
        ).reshape(-1, len(found[name]))
        assert found[name] == pytest.approx(np.cov(rows.T, bias=True), abs=1e-4)


def test_two_times_the_same(block_network) -> None:
    network = block_network()
    found = dependencies_of(network)
    one, two = (surgeon(network, found, IMAGES) for _ in range(2))
    for name in one:
        assert (one[name] == two[name]).all()


def test_a_group_that_a_larger_kernel_reads_is_not_ranked(block_network) -> None:
    network = block_network()
    assert unranked(network, dependencies_of(network)) == ()
    assert set(surgeon(network, dependencies_of(network), IMAGES)) == {
        group.name for group in dependencies_of(network).groups
    }
    from keras import Input, Model, layers

    image = Input((16, 16, 3))
    x = layers.Conv2D(8, 3, name="one")(image)
    x = layers.Conv2D(8, 3, name="two")(x)
    x = layers.GlobalAveragePooling2D()(x)
    plain = Model(image, layers.Dense(3, name="logits")(x))
    assert unranked(plain, dependencies_of(plain)) == ("one",)
    assert set(surgeon(plain, dependencies_of(plain), IMAGES)) == {"two"}
