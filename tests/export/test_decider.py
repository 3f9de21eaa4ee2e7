"""The line fits each file on validation images, apart and once, and refuses in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.export.decider import Decider
from smidgen.export.errors import CalibrationError, DecisionError
from smidgen.export.keys import bundle_key
from smidgen.export.line import export
from smidgen.export.pictures import Picture
from smidgen.export.recipe import DecisionsRecipe, ExportPlan, ExportRecipe
from smidgen.runtime import Bundle
from smidgen.runtime.decisions import calibrated
from smidgen.runtime.files import sha256_of_file
from smidgen.runtime.manifest import Manifest
from smidgen.train.progress import SilentProgress

TFLITE = ExportRecipe(formats=("tflite",), max_drop=20.0)
PLAN = ExportPlan(TFLITE, decisions=DecisionsRecipe(answered_accuracy=25))
FLOAT = ExportPlan(ExportRecipe(formats=("tflite",), schemes=("float32",)))


@pytest.fixture(scope="module")
def labelled(float_model, tmp_path_factory) -> Any:
    """The toy with 64 more pictures to validate on; labels by its own softmax at T = 2."""
    from PIL import Image

    from smidgen.export.gate.judge import reference_scores

    folder = tmp_path_factory.mktemp("validation")
    random = np.random.default_rng(11)
    pictures = []
    for number in range(64):
        cells = random.integers(0, 256, (3, 3, 3)).astype(np.uint8)
        path = folder / f"{number:02}.png"
        Image.fromarray(cells).resize((48, 48), Image.Resampling.BICUBIC).save(path)
        pictures.append(Picture(str(path), sha256_of_file(path)))

    def named(items: Any) -> tuple[Picture, ...]:
        scores = reference_scores(
            float_model.load(), float_model.normalization, float_model.preprocessing, items, _quiet
        )
        chances = calibrated(scores, 2.0).astype(np.float64).cumsum(axis=1)
        drawn = (chances / chances[:, -1:] > random.random((len(items), 1))).argmax(axis=1)
        return tuple(
            dataclasses.replace(item, label=int(label))
            for item, label in zip(items, drawn, strict=True)
        )

    return dataclasses.replace(
        float_model, validation=named(pictures), held_out=named(float_model.held_out)
    )


def _quiet(count: int) -> None:
    pass


@pytest.fixture(scope="module")
def result(labelled, tmp_path_factory):
    return export(labelled, PLAN, tmp_path_factory.mktemp("decided"))


def test_each_file_is_fitted_by_its_own_scores(result):
    manifests = {made.scheme: Bundle.open(made.path).manifest for made in result.bundles}
    float32, int8 = manifests["float32"], manifests["int8"]
    assert float32.temperature > 1.2
    assert int8.temperature > 1.2
    assert int8.temperature != float32.temperature
    assert int8.temperature == pytest.approx(float32.temperature, rel=0.1)
    for made in result.bundles:
        found = Bundle.open(made.path).manifest
        assert made.facts["temperature"] == (
            f"{found.temperature:g}, fitted on 64 validation images"
        )
        assert "without temperature" in made.facts["calibration error"]
        assert found.abstain_below == 0 or "held-out images" in made.facts["answered"]
        assert "with 95 % confidence" in made.facts["abstains"]
        shift = found.verdict.confidence_shift_points
        assert shift < -3  # what the device says is less sure than the network was


def test_nothing_is_fitted_twice(result, labelled):
    progress = SilentProgress()
    again = export(labelled, PLAN, result.folder, progress)
    assert again.bundles == result.bundles
    assert progress.stages == []


def test_the_same_again_is_the_same_byte_for_byte(labelled, tmp_path):
    made = [export(labelled, FLOAT, tmp_path / name).bundles[0] for name in "ab"]
    assert made[0].facts == made[1].facts
    assert Bundle.open(made[0].path).manifest.temperature > 1.2
    assert made[0].path.read_bytes() == made[1].path.read_bytes()


def test_the_key_knows_what_is_fitted_and_on_what(labelled):
    def key(source: Any = labelled, **decisions: Any) -> str:
        plan = dataclasses.replace(PLAN, decisions=DecisionsRecipe(**decisions))
        return bundle_key(source, plan, "tflite", "int8")

    fewer = dataclasses.replace(labelled, validation=labelled.validation[1:])
    assert key() == key()
    assert len({key(), key(answered_accuracy=90), key(temperature_scaling=False)}) == 3
    assert key(fewer) != key()
    assert key(fewer, temperature_scaling=False) == key(temperature_scaling=False)


class Parrot:
    """A judge whose file answers what it is told to."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.asked = scores, 0

    def answer_pictures(self, *_: Any) -> Any:
        self.asked += 1
        return self


def manifest_of(make_bundle: Any) -> Manifest:
    return Bundle.open(make_bundle()).manifest


def decider(labelled: Any, scores: np.ndarray, **recipe: Any) -> Decider:
    source = dataclasses.replace(labelled, validation=labelled.validation[: len(scores)])
    judge: Any = Parrot(scores)
    return Decider(source, DecisionsRecipe(**recipe), SilentProgress(), {}, judge)


def answers(labelled: Any, count: int, wrong: int) -> np.ndarray:
    """``count`` answers of 0.7, ``wrong`` of them wrong."""
    truth = np.array([picture.label for picture in labelled.validation[:count]])
    truth[:wrong] = (truth[:wrong] + 1) % 4
    scores = np.full((count, 4), 0.1, np.float32)
    scores[np.arange(count), truth] = 0.7
    return scores


def test_few_images_leave_the_temperature_at_1(labelled, make_bundle):
    one = decider(labelled, answers(labelled, 49, 2))
    one.check()
    decided = one.decide(Path("a.onnx"), manifest_of(make_bundle))
    assert (decided.temperature, decided.abstain_below) == (1.0, 0.0)
    assert decided.facts == {"temperature": "1: 49 validation images are too few, 50 are needed"}
    assert one.judge.asked == 0
    assert one.progress.notes == [
        "no temperature is fitted: 49 validation images are too few, 50 are needed"
    ]


def test_the_turns_of_a_picture_are_one_image(labelled, make_bundle):
    """The orientation task: 60 pictures, four turns each; the fourth of one picture is wrong."""
    turned = tuple(
        dataclasses.replace(picture, turn=turn, label=turn)
        for picture in labelled.validation[:60]
        for turn in range(4)
    )
    scores = np.tile(np.where(np.eye(4) > 0, 0.7, 0.1).astype(np.float32), (60, 1))
    source = dataclasses.replace(labelled, validation=turned)
    judge: Any = Parrot(scores)
    one = Decider(source, DecisionsRecipe(answered_accuracy=95), SilentProgress(), {}, judge)
    one.check()
    decided = one.decide(Path("a.onnx"), manifest_of(make_bundle))
    assert decided.facts["temperature"].endswith("fitted on 60 validation images")
    assert "(at least 95.1% with 95 % confidence)" in decided.facts["abstains"]  # 60 of 60
    scores[3] = scores[0]  # one of 240 answers is wrong: counted as one of 60, rounded up
    with pytest.raises(DecisionError, match="--answered-accuracy 92"):
        one.decide(Path("a.onnx"), manifest_of(make_bundle))
    short = dataclasses.replace(labelled, validation=turned[:196])
    few = Decider(short, DecisionsRecipe(), SilentProgress(), {}, judge)
    assert few.images == 49
    assert few.decide(Path("a.onnx"), manifest_of(make_bundle)).temperature == 1.0


def test_nothing_is_asked_where_nothing_is_wanted(labelled, make_bundle):
    one = decider(labelled, answers(labelled, 64, 2), temperature_scaling=False)
    assert one.decide(Path("a.onnx"), manifest_of(make_bundle)).facts == {}
    assert one.judge.asked == 0


def test_unlabelled_images_are_no_ground_to_fit_on(float_model, make_bundle):
    one = Decider(float_model, DecisionsRecipe(), SilentProgress(), {})
    decided = one.decide(Path("a.onnx"), manifest_of(make_bundle))
    assert decided.facts == {"temperature": "1: no labelled validation images to fit it on"}
    asked = Decider(float_model, DecisionsRecipe(answered_accuracy=90), SilentProgress(), {})
    with pytest.raises(DecisionError, match="without labelled validation images"):
        asked.check()


def test_what_so_few_images_cannot_prove_is_refused_before_any_work(labelled):
    one = decider(labelled, answers(labelled, 64, 0), answered_accuracy=99)
    with pytest.raises(DecisionError) as caught:
        one.check()
    assert str(caught.value) == (
        "64 validation images cannot prove that 99 % of the answers are right (that takes 299, "
        "without a fault): add some, or ask for at most --answered-accuracy 95.4"
    )
    decider(labelled, answers(labelled, 64, 0), answered_accuracy=95.4).check()


def test_a_file_that_cannot_keep_the_promise_is_not_made(labelled, make_bundle):
    manifest = manifest_of(make_bundle)
    with pytest.raises(DecisionError) as caught:
        decider(labelled, answers(labelled, 64, 8), answered_accuracy=90).decide(
            Path("a.onnx"), manifest
        )
    assert str(caught.value) == (
        "a.onnx: no threshold proves on 64 validation images that 90 % of the answers are right; "
        "ask for at most --answered-accuracy 78.5, or add validation images"
    )
    kept = decider(labelled, answers(labelled, 64, 8), answered_accuracy=78.5)
    assert kept.decide(Path("a.onnx"), manifest).abstain_below == 0.0


def test_a_validation_image_that_is_held_out_is_refused(labelled):
    source = dataclasses.replace(labelled, validation=labelled.held_out[:1])
    with pytest.raises(CalibrationError, match="is held out for the gate"):
        Decider(source, DecisionsRecipe(), SilentProgress(), {}).check()


def test_the_line_reports_a_promise_that_is_not_kept(labelled, tmp_path):
    truth_turned = tuple(
        dataclasses.replace(picture, label=(picture.label + 1) % 4)
        for picture in labelled.validation
    )
    source = dataclasses.replace(labelled, validation=truth_turned)
    plan = dataclasses.replace(FLOAT, decisions=DecisionsRecipe(answered_accuracy=90))
    result = export(source, plan, tmp_path)
    assert result.failed
    assert "no threshold proves" in result.failures[0].reason
    assert not list(tmp_path.glob("*.tflite"))
    assert json.loads((tmp_path / "export.json").read_text())["ok"] is False
