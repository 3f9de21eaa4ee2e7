"""The answers of a Classifier, with the fake engine: scores by brightness."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import (
    Bundle,
    Classification,
    Classifier,
    EngineFailed,
    ImageUnreadable,
    NotABundle,
    Prediction,
    Preprocessing,
    SmidgenError,
)
from smidgen.runtime.fake import FakeEngine
from smidgen.runtime.manifest import TensorSpec

MakeBundle = Callable[..., Path]


def grey(level: int) -> Any:
    return np.full((8, 8, 3), level, np.uint8)


@pytest.fixture
def classifier(make_bundle: MakeBundle) -> Classifier:
    return Classifier(make_bundle("onnx"), backend=FakeEngine())


def test_the_answer_is_sorted_and_labelled(classifier: Classifier) -> None:
    answer = classifier.classify(grey(250))
    assert isinstance(answer, Classification)
    assert (answer.label, answer.abstained) == ("blue", False)
    assert answer.score == pytest.approx(0.9)
    assert [one.label for one in answer.top] == ["blue", "red", "grün"]  # equal: label order
    assert answer.top[0] == Prediction("blue", 2, answer.score)
    assert sum(one.score for one in answer.top) == pytest.approx(1.0)
    assert classifier.engine_name == "fake"
    assert classifier.engine_version == "1.2.3"
    assert classifier.manifest is classifier.bundle.manifest


def test_top_limits_the_answer(classifier: Classifier) -> None:
    assert [len(classifier.classify(grey(1), top=top).top) for top in (1, 2, 3, 99)] == [1, 2, 3, 3]
    for top in (0, -1, 1.0, True, "1", None):
        with pytest.raises(SmidgenError, match="top = "):
            classifier.classify(grey(1), top=top)  # type: ignore[arg-type]


@pytest.mark.parametrize(("threshold", "abstained"), [(0.0, False), (0.89, False), (0.91, True)])
def test_it_abstains_below_the_manifests_threshold(
    make_bundle: MakeBundle, threshold: float, abstained: bool
) -> None:
    path = make_bundle("onnx", abstain_below=threshold)
    answer = Classifier(path, backend=FakeEngine()).classify(grey(5))
    assert (answer.label, answer.abstained) == ("red", abstained)


def test_a_batch_answers_in_order(classifier: Classifier, photo_png: bytes) -> None:
    answers = classifier.classify_batch([grey(250), photo_png, grey(5), grey(128)])
    assert [answer.label for answer in answers] == ["blue", "red", "red", "grün"]
    assert classifier.classify_batch([]) == ()
    assert all(answer.timings.inference_ns > 0 for answer in answers)
    with pytest.raises(ImageUnreadable):
        classifier.classify_batch([grey(1), b"no picture"])


def test_timings_are_those_of_the_stages(classifier: Classifier, photo_png: bytes) -> None:
    timings = classifier.classify(photo_png).timings
    assert all(0 < value < 10**10 for value in dataclasses.astuple(timings))


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 9, 3), np.uint8), np.zeros((1, 8, 8, 3))],
)
def test_scores_takes_input_tensors_only(classifier: Classifier, pixels: Any) -> None:
    with pytest.raises(SmidgenError, match=r"expected uint8 \(N, 8, 8, 3\)"):
        classifier.scores(pixels)


def test_scores_of_nothing(classifier: Classifier) -> None:
    assert classifier.scores(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("answer", [[[np.nan, 0, 1]], [[0.5, 0.5]], [0.2, 0.3, 0.5]])
def test_engines_that_return_nonsense_are_caught(make_bundle: MakeBundle, answer: Any) -> None:
    engine = FakeEngine(scores=lambda *_: np.array(answer, np.float32))
    with pytest.raises(EngineFailed, match="not finite"):
        Classifier(make_bundle("onnx"), backend=engine).classify(grey(1))


def test_a_bundle_can_be_given(make_bundle: MakeBundle) -> None:
    bundle = Bundle.open(make_bundle("onnx"))
    with Classifier(bundle, backend=FakeEngine()) as classifier:
        assert classifier.bundle is bundle
        assert classifier.classify(grey(5)).label == "red"
    with pytest.raises(EngineFailed, match="closed"):
        classifier.classify(grey(5))


@pytest.mark.parametrize(
    "change",
    [
        {"input": TensorSpec("image", (-1, 3, 8, 8), "uint8", "NCHW", 0.0, 255.0)},
        {"input": TensorSpec("image", (-1, 8, 8, 3), "float32", "NHWC", 0.0, 1.0, scale=1 / 255)},
        {"input": TensorSpec("image", (-1, 8, 8, 3), "int8", "NHWC", 0.0, 255.0)},
        {"preprocessing": Preprocessing(width=9, height=8)},
    ],
)
def test_an_input_that_this_runtime_cannot_feed(make_bundle: MakeBundle, change: Any) -> None:
    with pytest.raises(NotABundle, match=r"this runtime feeds pixels 0\.\.255 as NHWC"):
        Classifier(make_bundle("onnx", golden=None, **change), backend=FakeEngine())
