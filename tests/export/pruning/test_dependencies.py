from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.errors import PruningError
from smidgen.export.pruning.dependencies import dependencies_of


def test_the_channels_of_an_inverted_bottleneck_go_together(block_network) -> None:
    found = dependencies_of(block_network())
    groups = {group.name: group for group in found.groups}
    assert list(groups) == ["stem_conv", "expand_conv", "se_reduce", "head_conv", "head_dense"]
    expand = groups["expand_conv"]
    assert expand.makers == ("expand_conv", "se_expand")
    assert expand.norms == ("expand_bn", "depthwise_bn")
    assert expand.gate == "depthwise_bn"
    assert len(expand.channels) == 24
    for layer in ("depthwise_conv", "se_reshape", "se_multiply", "project_conv"):
        assert (found.entering[layer] == expand.channels).all()
    assert (found.entering["head_dense"] == groups["head_conv"].channels).all()
    assert (found.entering["logits"] == groups["head_dense"].channels).all()
    assert (groups["se_reduce"].gate, groups["se_reduce"].norms) == ("se_reduce", ())


def test_channels_that_a_shortcut_carries_stay_and_the_reason_is_said(block_network) -> None:
    found = dependencies_of(block_network())
    assert found.kept == ("entry_conv: add adds a shortcut to them", "logits: it is the output")


def test_flattened_channels_are_found_at_every_position() -> None:
    from keras import Input, Model, layers

    image = Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="conv")(image)
    x = layers.Flatten(name="flatten")(x)
    found = dependencies_of(Model(image, layers.Dense(2, name="logits")(x)))
    assert len(found.entering["logits"]) == 16 * 8
    assert (found.entering["logits"] == np.tile(found.groups[0].channels, 16)).all()


def test_concatenated_channels_are_those_of_both() -> None:
    from keras import Input, Model, layers

    image = Input((4, 4, 3))
    one = layers.Conv2D(8, 1, name="one")(image)
    two = layers.Conv2D(16, 1, name="two")(image)
    x = layers.Concatenate(name="join")([one, two])
    found = dependencies_of(Model(image, layers.Conv2D(2, 1, name="last")(x)))
    ids = [group.channels for group in found.groups]
    assert [len(channels) for channels in ids] == [8, 16]
    assert (found.entering["last"] == np.concatenate(ids)).all()


@pytest.mark.parametrize("obstacle", ["softmax", "unknown layer", "grouped", "twice", "axis"])
def test_channels_stay_before_what_is_not_known(obstacle) -> None:
    from keras import Input, Model, layers

    image = Input((4, 4, 3))
    first = x = layers.Conv2D(8, 1, name="conv")(image)
    if obstacle == "softmax":
        x = layers.Activation("softmax", name="obstacle")(x)
    elif obstacle == "unknown layer":
        x = layers.LayerNormalization(name="obstacle")(x)
    elif obstacle == "grouped":
        x = layers.Conv2D(8, 1, groups=4, name="obstacle")(x)
    elif obstacle == "twice":
        again = layers.DepthwiseConv2D(3, padding="same", name="obstacle")
        x = again(again(x))
    else:
        x = layers.BatchNormalization(axis=1, name="obstacle")(x)
    assert first is not x
    x = layers.Conv2D(16, 1, name="free")(x)
    found = dependencies_of(Model(image, layers.Conv2D(2, 1, name="last")(x)))
    assert [group.name for group in found.groups] == ["free"]
    assert any(line.startswith("conv: obstacle (") for line in found.kept)


def test_a_network_without_removable_channels_is_refused() -> None:
    from keras import Input, Model, Sequential, layers

    image = Input((4, 4, 3))
    last = Model(image, layers.Conv2D(2, 1, name="only")(image), name="flat")
    with pytest.raises(PruningError, match=r"no channel of flat can be removed \(only: it is the"):
        dependencies_of(last)
    with pytest.raises(PruningError, match="Sequential is not a functional"):
        dependencies_of(Sequential([layers.Dense(2)]))


@pytest.mark.parametrize(
    ("backbone", "blocks"), [("efficientnet-b0", 15), ("efficientnetv2-b0", 20)]
)
def test_every_block_of_larger_networks_can_be_pruned(backbone, blocks) -> None:
    from smidgen.train.models.network import build
    from smidgen.train.recipe import ModelRecipe

    found = dependencies_of(build(ModelRecipe(backbone=backbone, weights="none"), 3, 32))
    expanded = [group for group in found.groups if group.name.endswith("expand_conv")]
    assert len(expanded) == blocks
    with_squeeze = [group for group in expanded if len(group.makers) == 2]
    assert all(group.makers[1].endswith("se_expand") for group in with_squeeze)
    assert {"top_conv"} <= {group.name for group in found.groups}
