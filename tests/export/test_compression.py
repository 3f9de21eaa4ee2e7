"""Passes in their order, kept by content: what did not change is not done twice."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from smidgen.export.calibration import Calibration
from smidgen.export.compression import compress
from smidgen.export.errors import SourceError
from smidgen.export.recipe import ChannelsRecipe, ClusteringRecipe, ExportPlan, SparsityRecipe
from smidgen.export.source import TrainingData
from smidgen.export.tuner import FakeTuner
from smidgen.export.workshop import PassResult, Workshop
from smidgen.train.data import Dataset
from smidgen.train.progress import SilentProgress
from smidgen.train.recipe import DataRecipe, TrainRecipe

PLAN = ExportPlan(channels=ChannelsRecipe(keep=0.5), clustering=ClusteringRecipe(clusters=8))


class Passes:
    """Adds a number to the last bias, so that order and repetition can be read from it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def table(self) -> dict[str, Any]:
        return {
            "channels": lambda n, p, _: self._apply("channels", n, 1.0, p.channels.keep),
            "sparsity": lambda n, p, _: self._apply("sparsity", n, 10.0, p.sparsity.share),
            "clustering": lambda n, p, _: self._apply(
                "clustering", n, 100.0, p.clustering.clusters
            ),
        }

    def _apply(self, name, network, number, setting):
        import keras

        self.calls.append(name)
        copy = keras.models.clone_model(network)
        copy.set_weights([*network.get_weights()[:-1], network.get_weights()[-1] + number])
        return PassResult(copy, {"setting": str(setting)})


@pytest.fixture()
def workshop(float_model, tmp_path) -> Workshop:
    data = TrainingData(
        TrainRecipe(DataRecipe("images")), Dataset("images", ("a", "b"), (), (), ())
    )
    source = dataclasses.replace(float_model, training=data)
    calibration = Calibration(source.calibration_pool, source.preprocessing)
    tuner = FakeTuner(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.int64))
    return Workshop(source, calibration, tuner, SilentProgress(), tmp_path / "work")


def bias(network: Any) -> float:
    return float(network.get_weights()[-1][0])


def refuse() -> Any:
    raise AssertionError("the network was loaded")


def test_passes_are_applied_in_order_and_recorded(workshop, float_model, tmp_path):
    passes = Passes()
    workshop.work.mkdir()
    (workshop.work / "checkpoint").write_text("of a tuning")
    result = compress(float_model.load, PLAN, workshop, tmp_path / "passes", passes.table())
    assert not workshop.work.exists()
    assert passes.calls == ["channels", "clustering"]
    assert bias(result.network) == pytest.approx(bias(float_model.load()) + 101.0, abs=1e-4)
    assert [(r.name, r.facts) for r in result.records] == [
        ("channels", {"setting": "0.5"}), ("clustering", {"setting": "8"}),
    ]  # fmt: skip


def test_a_fact_of_every_layer_is_recorded_and_not_said(workshop, float_model, tmp_path):
    facts = {"parameters": "90 > 40", "channels": ", ".join(f"conv_{i} 96>40" for i in range(30))}
    table = {"channels": lambda network, _, __: PassResult(network, facts)}
    plan = ExportPlan(channels=ChannelsRecipe(keep=0.5))
    result = compress(float_model.load, plan, workshop, tmp_path / "passes", table)
    assert result.records[0].facts == facts
    assert workshop.progress.notes == ["channels: parameters 90 > 40"]


def test_what_did_not_change_is_not_done_again(workshop, float_model, tmp_path):
    first, again, other = Passes(), Passes(), Passes()
    folder = tmp_path / "passes"
    one = compress(float_model.load, PLAN, workshop, folder, first.table())
    two = compress(refuse, PLAN, workshop, folder, again.table())
    assert again.calls == []
    assert two.records == one.records
    for a, b in zip(one.network.get_weights(), two.network.get_weights(), strict=True):
        assert np.array_equal(a, b)
    later = dataclasses.replace(PLAN, clustering=ClusteringRecipe(clusters=4))
    compress(refuse, later, workshop, folder, other.table())
    assert other.calls == ["clustering"]  # channels are kept from before
    between = dataclasses.replace(PLAN, sparsity=SparsityRecipe(share=0.5))
    third = Passes()
    compress(refuse, between, workshop, folder, third.table())
    assert third.calls == ["sparsity", "clustering"]


def test_other_weights_or_images_start_anew(workshop, float_model, tmp_path):
    folder = tmp_path / "passes"
    compress(float_model.load, PLAN, workshop, folder, Passes().table())
    source = dataclasses.replace(workshop.source, weights_sha256="9" * 64)
    anew = Passes()
    compress(
        float_model.load, PLAN, dataclasses.replace(workshop, source=source), folder, anew.table()
    )
    assert anew.calls == ["channels", "clustering"]


def test_a_damaged_result_is_made_again(workshop, float_model, tmp_path):
    folder = tmp_path / "passes"
    compress(float_model.load, PLAN, workshop, folder, Passes().table())
    (kept,) = folder.glob("clustering-*.keras")
    kept.write_bytes(kept.read_bytes()[:1000])
    anew = Passes()
    compress(refuse, PLAN, workshop, folder, anew.table())
    assert anew.calls == ["clustering"]


def test_without_training_images_passes_are_refused(workshop, float_model, tmp_path):
    source = dataclasses.replace(workshop.source, training=None)
    bare = dataclasses.replace(workshop, source=source)
    with pytest.raises(SourceError, match="channels and clustering need training images"):
        compress(float_model.load, PLAN, bare, tmp_path / "passes", Passes().table())
    nothing = compress(float_model.load, ExportPlan(), bare, tmp_path / "p", Passes().table())
    assert nothing.records == ()
