from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.errors import PruningError
from smidgen.export.pruning.criteria import LabelledPixels, bn_scale, l2, taylor
from smidgen.export.pruning.dependencies import dependencies_of
from smidgen.export.source import ChannelNormalization

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 1, 1])
NORMALIZATION = ChannelNormalization.of((100.0, 120.0, 140.0), 64.0)


def network_of_four_channels():
    """Convolution 1x1 of 4 channels, batch norm, mean over positions, 3 logits."""
    from keras import Input, Model, layers

    image = Input((2, 2, 3))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 1, name="conv")(image))
    x = layers.GlobalAveragePooling2D()(x)
    network = Model(image, layers.Dense(3, name="logits")(x))
    random = np.random.default_rng(5)
    for name in ("conv", "logits"):
        layer = network.get_layer(name)
        layer.set_weights([random.normal(0, 1, array.shape) for array in layer.get_weights()])
    rows = [[2, -0.5, 0, 1], [0.1, -0.3, 0, 0.2], [0.5, 0, -0.2, 0.1], [1, 2, 0.5, 0.25]]
    network.get_layer("bn").set_weights(list(np.array(rows)))
    return network


def squared_changes(network, pixels, labels) -> np.ndarray:
    """What Taylor importance is here, by hand: the derivatives of softmax cross entropy."""
    x = (pixels.astype(np.float64) - np.array(NORMALIZATION.mean)) / 64.0
    kernel, bias = network.get_layer("conv").get_weights()
    gamma, beta, mean, variance = network.get_layer("bn").get_weights()
    made = (x @ kernel[0, 0] + bias - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    pooled = made.mean(axis=(1, 2))
    weights, offset = network.get_layer("logits").get_weights()
    scores = np.exp(pooled @ weights + offset)
    surplus = scores / scores.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    return np.square(pooled * (surplus @ weights.T)).mean(axis=0)


def test_taylor_is_the_squared_change_of_the_loss_to_first_order() -> None:
    network = network_of_four_channels()
    groups = dependencies_of(network).groups
    found = taylor(network, groups, LabelledPixels(PIXELS, LABELS, NORMALIZATION))["conv"]
    expected = squared_changes(network, PIXELS, LABELS)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[2] == 0.0
    for wrong in (
        squared_changes(network, PIXELS, (LABELS + 1) % 3),
        squared_changes(network, PIXELS[..., ::-1], LABELS),
    ):
        assert found != pytest.approx(wrong, rel=1e-2)


def test_taylor_predicts_what_removing_a_small_channel_costs(block_network) -> None:
    import keras

    network = block_network()
    group = next(g for g in dependencies_of(network).groups if g.name == "expand_conv")
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 3])
    norm = network.get_layer("depthwise_bn")
    gamma, beta, *rest = norm.get_weights()
    gamma[7], beta[7] = 2e-2, 1e-2
    norm.set_weights([gamma, beta, *rest])
    images = LabelledPixels(pixels, labels, ChannelNormalization.of(127.0, 128.0))
    found = taylor(network, [group], images)["expand_conv"][7]

    def losses():
        logits = network.predict((pixels - np.float32(127)) / 128, verbose=0).astype(np.float64)
        return np.asarray(keras.losses.sparse_categorical_crossentropy(labels, logits, True))

    before = losses()
    gamma[7] = beta[7] = 0.0
    norm.set_weights([gamma, beta, *rest])
    measured = np.square(losses() - before).mean()
    assert found == pytest.approx(measured, rel=0.1)
    assert found != pytest.approx(4 * measured, rel=0.1)


def test_bn_scale_is_the_scale_against_its_mean() -> None:
    network = network_of_four_channels()
    found = bn_scale(network, dependencies_of(network).groups)["conv"]
    assert found == pytest.approx(np.array([2.0, 0.5, 0.0, 1.0]) / 0.875)


def test_bn_scale_leaves_out_what_has_no_batch_norm(block_network) -> None:
    from keras import Input, Model, layers

    network = block_network()
    found = bn_scale(network, dependencies_of(network).groups)
    assert set(found) == {"stem_conv", "expand_conv", "head_conv", "head_dense"}
    image = Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="conv")(image)
    plain = Model(image, layers.Conv2D(2, 1, name="last")(x), name="plain")
    with pytest.raises(PruningError, match=r'plain has no batch norm scale .* "taylor" or "l2"'):
        bn_scale(plain, dependencies_of(plain).groups)


def test_l2_is_the_norm_of_the_filters_of_all_makers(block_network) -> None:
    network = block_network()
    found = l2(network, dependencies_of(network).groups)
    squares = sum(
        np.square(network.get_layer(name).get_weights()[0]).sum(axis=(0, 1, 2))
        for name in ("expand_conv", "se_expand")
    )
    expected = np.sqrt(squares) / np.sqrt(squares).mean()
    assert found["expand_conv"] == pytest.approx(expected, rel=1e-5)
    assert all(sizes.mean() == pytest.approx(1.0) for sizes in found.values())
