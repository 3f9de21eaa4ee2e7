from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.errors import PruningError
from smidgen.export.pruning.cost import cost_of
from smidgen.export.pruning.criteria import LabelledPixels, taylor
from smidgen.export.pruning.dependencies import dependencies_of
from smidgen.export.pruning.ranking import Budget, Limits, least_valuable
from smidgen.export.pruning.surgery import remove_channels
from smidgen.export.source import ChannelNormalization

NO_LIMIT = 1e12


def two_convolutions():
    """``early`` has 16 channels at 64 positions, ``late`` 32 at 4; ``late`` has most weights."""
    from keras import Input, Model, layers

    image = Input((16, 16, 3))
    x = layers.Conv2D(16, 3, 2, padding="same", name="early")(image)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, 2, padding="same", name="late")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, layers.Dense(2, name="logits")(x))


def kept_of(network, importance, limits) -> dict[str, list[int]]:
    """Positions that stay, by group."""
    found = dependencies_of(network)
    removed = least_valuable(network, found, importance, limits)
    return {g.name: np.flatnonzero(~np.isin(g.channels, removed)).tolist() for g in found.groups}


def test_the_least_important_channels_go_first() -> None:
    network = two_convolutions()
    cost = cost_of(network)
    importance = {"early": np.full(16, 100.0), "late": np.arange(32.0)[::-1]}
    budget = Budget(NO_LIMIT, cost.int8_bytes - 1)
    kept = kept_of(network, importance, Limits(budget))
    assert kept == {"early": list(range(16)), "late": list(range(24))}
    budget = Budget(NO_LIMIT, cost.int8_bytes - 8 * (9 * 16 + 28 + 2) - 1)
    assert kept_of(network, importance, Limits(budget))["late"] == list(range(16))


def test_what_is_removed_depends_on_what_is_short() -> None:
    network = two_convolutions()
    cost = cost_of(network)
    importance = {"early": np.ones(16), "late": np.ones(32)}
    fewer_adds = kept_of(network, importance, Limits(Budget(cost.multiply_adds - 1, NO_LIMIT)))
    fewer_bytes = kept_of(network, importance, Limits(Budget(NO_LIMIT, cost.int8_bytes - 1)))
    # a block of early: 64 x 27 x 8 + 16 x 9 x 8 x 32 adds; of late: 16 x 9 x 16 x 8
    assert (len(fewer_adds["early"]), len(fewer_adds["late"])) == (8, 32)
    assert (len(fewer_bytes["early"]), len(fewer_bytes["late"])) == (8, 32)
    importance["early"] = np.full(16, 2.0)  # it saves 27 x 8 + 9 x 8 x 32 + 28 x 8 = 2744 bytes
    importance["late"] = np.full(32, 0.9)  # 9 x 16 x 8 + 2 x 8 + 28 x 8 = 1392
    fewer_adds = kept_of(network, importance, Limits(Budget(cost.multiply_adds - 1, NO_LIMIT)))
    fewer_bytes = kept_of(network, importance, Limits(Budget(NO_LIMIT, cost.int8_bytes - 1)))
    assert (len(fewer_adds["early"]), len(fewer_adds["late"])) == (8, 32)
    assert (len(fewer_bytes["early"]), len(fewer_bytes["late"])) == (16, 24)


@pytest.mark.parametrize("share", [0.8, 0.6, 0.5])
def test_the_budget_holds_in_multiples_of_eight(block_network, share) -> None:
    network = block_network()
    found, cost = dependencies_of(network), cost_of(network)
    random = np.random.default_rng(4)
    importance = {g.name: random.uniform(0, 1, len(g.channels)) for g in found.groups}
    budget = Budget(cost.multiply_adds * share, cost.int8_bytes * (1 + share) / 2)
    removed = least_valuable(network, found, importance, Limits(budget))
    after = cost_of(remove_channels(network, found, removed))
    assert after.multiply_adds <= budget.multiply_adds
    assert after.int8_bytes <= budget.int8_bytes
    assert after.multiply_adds > 0.7 * budget.multiply_adds
    for group in found.groups:
        left = len(group.channels) - np.isin(group.channels, removed).sum()
        assert left % 8 == 0 or left == len(group.channels)
        assert left > 0


def test_a_floor_and_a_block_are_kept_to() -> None:
    network = two_convolutions()
    cost = cost_of(network)
    importance = {"early": np.full(16, 9.0), "late": np.ones(32)}
    budget = Budget(NO_LIMIT, cost.int8_bytes * 0.6)
    limits = Limits(budget, floors={"late": 20}, block=4)
    kept = kept_of(network, importance, limits)
    assert (len(kept["early"]), len(kept["late"])) == (12, 20)
    assert len(kept_of(network, importance, Limits(budget, block=4))["late"]) < 20


def test_a_budget_that_cannot_be_held_is_refused_with_what_is_left() -> None:
    network = two_convolutions()
    importance = {"early": np.ones(16), "late": np.ones(32)}
    least = 27 * 8 + 28 * 8 + 9 * 8 * 8 + 28 * 8 + 8 * 2 + 28 * 2
    with pytest.raises(PruningError, match=rf" and {least:,} remain at the least; raise"):
        kept_of(network, importance, Limits(Budget(NO_LIMIT, least - 1)))
    assert len(kept_of(network, importance, Limits(Budget(NO_LIMIT, least)))["late"]) == 8


def test_removing_the_most_important_channels_shows(small_network) -> None:
    """The planted fault: a ranking the wrong way round."""
    network = small_network()
    found = dependencies_of(network)
    random = np.random.default_rng(6)
    cells = random.integers(0, 256, (48, 4, 4, 3)).astype(np.uint8)
    pixels = cells.repeat(8, 1).repeat(8, 2)
    normalised = (pixels - np.float32(127)) / np.float32(128)
    before = network.predict(normalised, verbose=0)
    labels = before.argmax(axis=1)
    images = LabelledPixels(pixels, labels, ChannelNormalization.of(127.0, 128.0))
    importance = taylor(network, found.groups, images)
    cost = cost_of(network)
    limits = Limits(Budget(cost.multiply_adds * 0.7, cost.int8_bytes * 0.7))
    changes = []
    for sign in (1, -1):
        ranked = {name: sign * values + values.max() for name, values in importance.items()}
        removed = least_valuable(network, found, ranked, limits)
        after = remove_channels(network, found, removed).predict(normalised, verbose=0)
        changes.append(np.abs(after - before).mean())
    assert changes[1] > 1.5 * changes[0]
