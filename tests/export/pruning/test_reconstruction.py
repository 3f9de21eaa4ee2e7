from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smidgen.export.graphs.readers import SampleImages
from smidgen.export.pruning.dependencies import dependencies_of
from smidgen.export.pruning.reconstruction import refit
from smidgen.export.pruning.surgery import remove_channels
from smidgen.export.source import ChannelNormalization

TOLERANCE = 1e-3
"""Largest difference of logits of about 1; the weakest ridge draws to the old weights by 1e-4."""


@pytest.fixture
def fit_images() -> SampleImages:
    pixels = np.random.default_rng(3).integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)
    return SampleImages(pixels, ChannelNormalization.of(127.5, 127.5))


def channels_of(network: Any, name: str) -> np.ndarray:
    return next(group.channels for group in dependencies_of(network).groups if group.name == name)


class Cut:
    """A network, and the same without some channels."""

    def __init__(self, network: Any, removed: np.ndarray) -> None:
        self.larger, self.removed = network, removed
        self.found = dependencies_of(network)
        self.smaller = remove_channels(network, self.found, removed)

    def fit(self, images: SampleImages) -> dict[str, float]:
        return refit(self.smaller, self.larger, self.found, self.removed, images)

    def error(self, images: np.ndarray) -> float:
        both = (network.predict(images, verbose=0) for network in (self.smaller, self.larger))
        return float(np.abs(np.subtract(*both)).max())


def same_channel(network: Any, layers: tuple[str, ...]) -> None:
    """Channel 1 of each layer becomes what channel 0 is."""
    for name in layers:
        layer = network.get_layer(name)
        arrays = layer.get_weights()
        for array in arrays:
            channel = array[..., 0, :] if name.startswith("depthwise_conv") else array[..., 0]
            if name.startswith("depthwise_conv"):
                array[..., 1, :] = channel
            else:
                array[..., 1] = channel
        layer.set_weights(arrays)


EXPAND = ("expand_conv", "expand_bn", "depthwise_conv", "depthwise_bn", "se_expand")
HEAD = ("head_conv", "head_bn")


@pytest.mark.parametrize("layers", [EXPAND, HEAD], ids=["expand", "head"])
def test_what_another_channel_says_too_is_not_missed(
    block_network, images, fit_images, layers
) -> None:
    network = block_network()
    same_channel(network, layers)
    cut = Cut(network, channels_of(network, layers[0])[1:2])
    assert cut.error(images) > 10 * TOLERANCE
    left = cut.fit(fit_images)
    assert list(left) == (["se_reduce", "project_conv"] if layers is EXPAND else ["head_dense"])
    assert max(left.values()) < 1e-4
    assert cut.error(images) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "norm"), [("expand_conv", "depthwise_bn"), ("head_conv", "head_bn")]
)
def test_a_constant_goes_into_the_bias_or_the_mean_behind(
    block_network, images, fit_images, name, norm
) -> None:
    network = block_network()
    gamma, beta, *rest = network.get_layer(norm).get_weights()
    gamma[2], beta[2] = 0.0, 2.5
    network.get_layer(norm).set_weights([gamma, beta, *rest])
    kernel, bias = network.get_layer("se_expand").get_weights()
    kernel[..., 2], bias[2] = 0.0, 0.0  # its gate is a constant, too
    network.get_layer("se_expand").set_weights([kernel, bias])
    cut = Cut(network, channels_of(network, name)[2:3])
    assert cut.error(images) > 10 * TOLERANCE
    cut.fit(fit_images)
    assert cut.error(images) < TOLERANCE


def test_half_of_the_channels_are_missed_less(block_network, images, fit_images) -> None:
    """Layers that lost outputs too are among them: ``se_reduce`` and ``head_dense``."""
    network = block_network()
    removed = np.concatenate([g.channels[::2] for g in dependencies_of(network).groups])
    cut = Cut(network, removed)
    before = cut.error(images)
    left = cut.fit(fit_images)
    assert list(left) == [
        "entry_conv", "se_reduce", "se_expand", "project_conv", "head_dense", "logits",
    ]  # fmt: skip
    assert all(share <= 1.0 for share in left.values())
    assert cut.error(images) < 0.7 * before


def test_where_nothing_went_nothing_is_fitted(block_network, fit_images) -> None:
    cut = Cut(block_network(), np.array([], np.int64))
    assert cut.fit(fit_images) == {}
    for one, two in zip(cut.larger.get_weights(), cut.smaller.get_weights(), strict=True):
        assert (one == two).all()


def test_the_same_fit_twice(block_network, fit_images) -> None:
    network = block_network()
    cuts = [Cut(network, dependencies_of(network).groups[0].channels[:5]) for _ in range(2)]
    assert cuts[0].fit(fit_images) == cuts[1].fit(fit_images)
    for one, two in zip(*(cut.smaller.get_weights() for cut in cuts), strict=True):
        assert (one == two).all()
