from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.pruning.dependencies import dependencies_of
from smidgen.export.pruning.surgery import remove_channels

TOLERANCE = 1e-5


def positions_of(channels, group) -> np.ndarray:
    return np.flatnonzero(np.isin(group.channels, channels))


def silence(network, group, channels) -> None:
    """Let channels give nothing: zero scale and offset of their norms, or zero filters."""
    gone = positions_of(channels, group)
    for name in group.norms or group.makers:
        layer = network.get_layer(name)
        arrays = layer.get_weights()
        for array in arrays[:2]:
            array[..., gone] = 0.0
        layer.set_weights(arrays)


def test_silent_channels_leave_without_a_trace(block_network, images) -> None:
    network = block_network()
    found = dependencies_of(network)
    removed = np.concatenate([group.channels[1::3] for group in found.groups])
    for group in found.groups:
        silence(network, group, removed)
    expected = network.predict(images, verbose=0)
    smaller = remove_channels(network, found, removed)
    assert np.abs(smaller.predict(images, verbose=0) - expected).max() < TOLERANCE
    assert (network.predict(images, verbose=0) == expected).all()
    for group in found.groups:
        left = smaller.get_layer(group.name).kernel.shape[-1]
        assert left == len(group.channels) - len(group.channels[1::3])
    assert smaller.get_layer("se_reshape").target_shape == (1, 1, 16)


@pytest.mark.parametrize("name", ["stem_conv", "expand_conv", "se_reduce", "head_conv"])
def test_channels_that_say_something_are_missed(block_network, images, name) -> None:
    network = block_network()
    found = dependencies_of(network)
    (group,) = [group for group in found.groups if group.name == name]
    smaller = remove_channels(network, found, group.channels[:1])
    difference = np.abs(smaller.predict(images, verbose=0) - network.predict(images, verbose=0))
    assert difference.max() > 100 * TOLERANCE


def test_what_stays_is_what_was_there(block_network) -> None:
    network = block_network()
    found = dependencies_of(network)
    expand = next(group for group in found.groups if group.name == "expand_conv")
    smaller = remove_channels(network, found, expand.channels[8:16])
    kept = np.r_[0:8, 16:24]

    def both(name):
        return network.get_layer(name).get_weights(), smaller.get_layer(name).get_weights()

    for name in ("expand_conv", "se_expand"):
        for old, new in zip(*both(name)):
            assert (old[..., kept] == new).all()
    for name in ("expand_bn", "depthwise_bn"):
        for old, new in zip(*both(name)):
            assert (old[kept] == new).all()
    for name in ("depthwise_conv", "se_reduce", "project_conv"):
        old, new = both(name)
        assert (old[0][:, :, kept] == new[0]).all()
    for name in ("stem_conv", "project_bn", "head_dense", "logits"):
        for old, new in zip(*both(name)):
            assert (old == new).all()
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in network.layers]
    assert smaller.input_shape == network.input_shape
    assert smaller.output_shape == network.output_shape


def test_channels_leave_flattened_and_concatenated_layers() -> None:
    from keras import Input, Model, layers

    image = Input((4, 4, 3))
    one = layers.Conv2D(8, 1, name="one")(image)
    two = layers.Conv2D(16, 1, name="two")(image)
    x = layers.Flatten(name="flatten")(layers.Concatenate(name="join")([one, two]))
    network = Model(image, layers.Dense(2, name="logits")(x))
    found = dependencies_of(network)
    removed = np.concatenate([found.groups[0].channels[:3], found.groups[1].channels[5:6]])
    for group in found.groups:
        silence(network, group, removed)
    smaller = remove_channels(network, found, removed)
    pixels = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    assert smaller.get_layer("logits").kernel.shape == (16 * 20, 2)
    assert np.abs(np.asarray(smaller(pixels)) - np.asarray(network(pixels))).max() < TOLERANCE
