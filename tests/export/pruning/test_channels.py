from __future__ import annotations

import json

import numpy as np
import pytest

from smidgen.export.calibration import choose
from smidgen.export.errors import PruningError
from smidgen.export.pruning.channels import prune_channels, prune_to
from smidgen.export.pruning.cost import cost_of
from smidgen.export.pruning.dependencies import dependencies_of
from smidgen.export.pruning.ranking import Budget
from smidgen.export.pruning.surgery import remove_channels
from smidgen.export.recipe import ChannelsRecipe
from smidgen.export.tuner import FakeTuner
from smidgen.export.workshop import Workshop
from smidgen.train.progress import SilentProgress


class CountingTuner(FakeTuner):
    """Remembers how often images were asked for and which networks taught."""

    asked = 0

    def batches(self, count):
        self.asked += 1
        return super().batches(count)

    def tune(self, subject, wish):
        self.teachers = [*getattr(self, "teachers", []), subject.teacher]
        self.subjects = [*getattr(self, "subjects", []), subject]
        return super().tune(subject, wish)


@pytest.fixture
def workshop(float_model, tmp_path) -> Workshop:
    random = np.random.default_rng(8)
    pixels = random.integers(0, 256, (24, 4, 4, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    tuner = CountingTuner(pixels, np.arange(24) % 4)
    calibration = choose(float_model.calibration_pool, (), 10, float_model.preprocessing)
    return Workshop(float_model, calibration, tuner, SilentProgress(), tmp_path)


@pytest.mark.parametrize("criterion", ["surgeon", "taylor", "bn-scale", "l2"])
def test_the_kept_share_is_reached_in_steps(small_network, workshop, criterion) -> None:
    network = small_network()
    settings = ChannelsRecipe(keep=0.6, criterion=criterion, steps=2, epochs=4, learning_rate=1e-3)
    result = prune_channels(network, settings, workshop)
    before, after = cost_of(network), cost_of(result.network)
    assert after.multiply_adds <= 0.6 * before.multiply_adds
    assert after.int8_bytes <= 0.6 * before.int8_bytes
    assert result.network.output_shape == network.output_shape
    tuner = workshop.tuner
    assert [wish.plan.epochs for wish in tuner.wishes] == [1, 4]
    assert {wish.plan.learning_rate for wish in tuner.wishes} == {1e-3}
    assert len({wish.name for wish in tuner.wishes}) == 2
    assert all(teacher is network for teacher in tuner.teachers)
    assert tuner.asked == 1


def test_the_facts_say_what_was_done(small_network, workshop) -> None:
    network = small_network()
    result = prune_channels(network, ChannelsRecipe(keep=0.7, steps=2), workshop)
    facts, smaller = result.facts, result.network
    assert facts["criterion"] == "surgeon"
    assert facts["multiply_adds"] == (
        f"{cost_of(network).multiply_adds} > {cost_of(smaller).multiply_adds}"
    )
    assert facts["validation_top1_percent"] == "90.00"
    assert facts["validation_top1_percent_cut"] == "90.00 90.00"
    assert facts["validation_top1_percent_fitted"] == "90.00 90.00"
    assert facts["validation_top1_percent_tuned"] == "90.00 90.00"
    assert "adds a shortcut to them; logits: it is the output" in facts["left_alone"]
    for part in facts["channels"].split(", "):
        name, counts = part.split(" ")
        old, new = (int(count) for count in counts.split(">"))
        assert network.get_layer(name).filters == old
        assert smaller.get_layer(name).filters == new


def test_a_pass_that_runs_again_takes_the_same_steps(small_network, workshop) -> None:
    network = small_network()
    settings = ChannelsRecipe(keep=0.6, steps=2, epochs=0)
    first = prune_channels(network, settings, workshop).network
    kept = sorted(workshop.work.rglob("step-*.json"))
    chosen = [path.read_text() for path in kept]
    again = prune_channels(network, settings, workshop).network
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        assert (one == two).all()
    workshop.tuner.pixels = 255 - workshop.tuner.pixels  # would rank and fit otherwise
    asked = workshop.tuner.asked
    again = prune_channels(network, settings, workshop).network
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        assert (one == two).all()
    assert workshop.tuner.asked == asked, "neither ranked nor fitted again"
    assert [path.read_text() for path in kept] == chosen
    prune_channels(network, ChannelsRecipe(keep=0.6, steps=1, epochs=0), workshop)
    assert len(list(workshop.work.rglob("step-*.json"))) == 3  # other settings, another choice
    prune_channels(small_network(seed=1), settings, workshop)
    assert len(list(workshop.work.rglob("step-*.json"))) == 5  # another network


def test_half_the_cost_is_missed_less_when_layers_are_fitted(small_network, workshop) -> None:
    """Nothing is tuned: what is left of the difference is what the fit left."""
    network = small_network()
    settings = ChannelsRecipe(keep=0.5, steps=1, epochs=0)
    fitted = prune_channels(network, settings, workshop).network
    (path,) = workshop.work.rglob("step-1.json")
    removed = np.array(json.loads(path.read_text()), np.int64)
    cut = remove_channels(network, dependencies_of(network), removed)
    images = (np.asarray(workshop.tuner.pixels, np.float32) - 127.5) / 127.5
    want = network.predict(images, verbose=0)
    errors = [np.square(n.predict(images, verbose=0) - want).mean() for n in (fitted, cut)]
    assert errors[0] < 0.5 * errors[1]


def test_a_budget_of_bytes_alone(small_network, workshop) -> None:
    network = small_network()
    cost = cost_of(network)
    target = Budget(multiply_adds=cost.multiply_adds, int8_bytes=0.7 * cost.int8_bytes)
    result = prune_to(target, network, ChannelsRecipe(steps=1, epochs=0), workshop)
    assert 0.5 * cost.int8_bytes < cost_of(result.network).int8_bytes <= 0.7 * cost.int8_bytes


def test_where_a_larger_kernel_reads_channels_taylor_ranks_them(workshop) -> None:
    from keras import Input, Model, layers

    image = Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=4, activation="relu", name="one")(image)
    x = layers.Conv2D(16, 3, activation="relu", name="two")(x)
    x = layers.GlobalAveragePooling2D()(x)
    network = Model(image, layers.Dense(4, name="logits")(x))
    settings = ChannelsRecipe(keep=0.7, steps=1, epochs=0)
    result = prune_channels(network, settings, workshop)
    assert result.facts["criterion"] == "taylor"
    (note,) = [note for note in workshop.progress.notes if "taylor" in note]
    assert "the surgeon cannot judge 1 of 2 groups, such as one, which a larger kernel" in note
    assert cost_of(result.network).multiply_adds <= 0.7 * cost_of(network).multiply_adds


def test_the_teacher_gives_hints_where_shortcuts_are_added(block_network, workshop) -> None:
    workshop.tuner.pixels = workshop.tuner.pixels[:, ::2, ::2]
    settings = ChannelsRecipe(keep=0.7, steps=1, epochs=1, hint_weight=5.0)
    prune_channels(block_network(), settings, workshop)
    (subject,), (wish,) = workshop.tuner.subjects, workshop.tuner.wishes
    assert subject.hints == ("add",)
    assert (wish.plan.hint_weight, wish.plan.batch_norm) == (5.0, "frozen")
    network, teacher = subject.network, subject.teacher
    assert network.get_layer("add").output.shape == teacher.get_layer("add").output.shape


def test_groups_that_a_criterion_cannot_rank_stay(block_network, workshop) -> None:
    workshop.tuner.pixels = workshop.tuner.pixels[:, ::2, ::2]
    network = block_network()
    settings = ChannelsRecipe(keep=0.7, criterion="bn-scale", steps=1, epochs=0)
    smaller = prune_channels(network, settings, workshop).network
    assert smaller.get_layer("se_reduce").filters == network.get_layer("se_reduce").filters
    assert cost_of(smaller).multiply_adds <= 0.7 * cost_of(network).multiply_adds


def test_all_kept_is_the_network_itself(small_network, workshop) -> None:
    network = small_network()
    assert prune_channels(network, ChannelsRecipe(), workshop).network is network


def test_too_much_asked_for_is_refused(small_network, workshop) -> None:
    with pytest.raises(PruningError, match=r"raise channels\.keep"):
        prune_channels(small_network(), ChannelsRecipe(keep=0.05, steps=1), workshop)
