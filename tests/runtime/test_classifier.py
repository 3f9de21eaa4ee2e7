"""The answers of a Classifier, with the fake engine: scores by brightness."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import (
    ArgumentInvalid,
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
from smidgen.runtime.classifier import GROUP, highest
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.errors import BundleUntrusted
from smidgen.runtime.fake import FakeEngine, brightness_scores
from smidgen.runtime.fast_pixels import LARGEST_TOLERANCE
from smidgen.runtime.manifest import TensorSpec
from smidgen.runtime.preprocessing import load_pixels

MakeBundle = Callable[..., Path]
PATIENCE_S = 60.0


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


@pytest.mark.parametrize("count", [1, 2, 5, 40, 41, 1000])
def test_the_highest_are_those_of_a_stable_sort(count: int) -> None:
    rng = np.random.default_rng(5)
    differences = 0
    for levels in (2, 5, 256, 10**6):  # as few levels as a quantized output has: many equal scores
        for _ in range(30):
            scores = (rng.integers(0, levels, 41) / levels).astype(np.float32)
            expected = np.argsort(-scores, kind="stable")[:count].tolist()
            assert highest(scores, count) == expected
            from_behind = (40 - np.argsort(-scores[::-1], kind="stable")[:count]).tolist()
            differences += from_behind != expected
    assert differences > 20  # what keeps another order of equal scores would be seen


def test_the_order_is_that_of_the_models_own_scores(make_bundle: MakeBundle) -> None:
    """A temperature of 100 makes these three equal in float32."""
    third = np.float32(1 / 3)
    raw = np.array([[third, np.nextafter(third, np.float32(0)), np.nextafter(third, 1)]])
    engine = FakeEngine(scores=lambda *_: raw.astype(np.float32))
    path = make_bundle("onnx", temperature=100.0)
    answer = Classifier(path, backend=engine, threads=1).classify(grey(1))
    assert [one.index for one in answer.top] == [2, 0, 1]
    assert len({one.score for one in answer.top}) == 1


def test_a_batch_holds_eight_pictures_at_once(make_bundle: MakeBundle) -> None:
    taken, groups = [], []

    def pictures() -> Iterator[Any]:
        for index in range(2 * GROUP + 3):
            taken.append(index)
            yield grey(250 if index % 2 else 5)

    def scores(pixels: Any, classes: int) -> Any:
        groups.append((len(pixels), len(taken)))
        return brightness_scores(pixels, classes)

    classifier = Classifier(make_bundle("onnx"), backend=FakeEngine(scores=scores), threads=1)
    answers = classifier.classify_batch(pictures())
    assert [answer.label for answer in answers] == ["red", "blue"] * 9 + ["red"]
    assert groups == [(8, 8), (8, 16), (3, 19)]
    stacked = np.stack([grey(250), grey(5)])
    assert [one.label for one in classifier.classify_batch(stacked)] == ["blue", "red"]


@pytest.mark.parametrize("pictures", ["rose.jpg", b"\xff\xd8", Path("rose.jpg"), grey(1), 7])
def test_one_picture_is_no_batch(classifier: Classifier, pictures: Any) -> None:
    with pytest.raises(ArgumentInvalid, match=r"classify_batch\(\) got .*classify\(\) takes one"):
        classifier.classify_batch(pictures)


class Turns:
    """Scores by brightness; counts how many threads are inside at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.meeting: Any = None
        self._lock = threading.Lock()

    def scores(self, pixels: Any, classes: int) -> Any:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        if self.meeting is not None:
            self.meeting.wait(PATIENCE_S)
        try:
            return brightness_scores(pixels, classes)
        finally:
            with self._lock:
                self.inside -= 1


def test_threads_take_turns_at_the_engine(make_bundle: MakeBundle, photo_png: bytes) -> None:
    turns = Turns()
    engine = FakeEngine(scores=turns.scores)
    classifier = Classifier(make_bundle("onnx"), backend=engine, threads=1)
    pictures = [photo_png, *(grey(level) for level in range(0, 256, 5))] * 8
    expected = [classifier.classify(one).top for one in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: classifier.classify(one).top, pictures))
    assert found == expected
    assert turns.most == 1
    turns.meeting = threading.Barrier(2)  # a fault planted: two threads at one session
    session = engine.open(b"", classifier.manifest, EngineOptions())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(session.run, [grey(1)[None]] * 2))
    assert turns.most == 2


@pytest.mark.parametrize(("model_format", "scheme"), [("tflite", "int8"), ("onnx", "float32")])
def test_threads_get_the_answers_of_one_thread(
    make_bundle: MakeBundle, model_format: str, scheme: str
) -> None:
    rng = np.random.default_rng(3)
    pictures = list(rng.integers(0, 256, (200, 12, 10, 3), dtype=np.uint8))
    with Classifier(make_bundle(model_format, scheme)) as classifier:
        expected = [classifier.classify(one).top for one in pictures]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda one: classifier.classify(one).top, pictures))
        assert found == expected
        assert [one.top for one in classifier.classify_batch(pictures)] == expected
        assert [one.answer.top for one in classifier.stream(pictures)] == expected


def test_pictures_are_decoded_while_another_thread_has_the_engine(
    make_bundle: MakeBundle, tmp_path: Path, photo_png: bytes
) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(photo_png)
    opened, in_engine = threading.Event(), threading.Event()

    class Watched:
        def __fspath__(self) -> str:
            opened.set()
            return str(file)

    def scores(pixels: Any, classes: int) -> Any:
        in_engine.set()
        assert opened.wait(PATIENCE_S)
        return brightness_scores(pixels, classes)

    classifier = Classifier(make_bundle("onnx"), backend=FakeEngine(scores=scores), threads=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(classifier.classify, grey(250))
        assert in_engine.wait(PATIENCE_S)
        second = pool.submit(classifier.classify, Watched())
        assert [first.result().label, second.result().label] == ["blue", "red"]


@pytest.mark.parametrize(("model_format", "scheme"), [("tflite", "int8"), ("onnx", "float32")])
def test_closing_while_others_classify(
    make_bundle: MakeBundle, model_format: str, scheme: str
) -> None:
    for _ in range(10):
        classifier = Classifier(make_bundle(model_format, scheme), threads=1)
        expected = classifier.classify(grey(250)).top
        started = threading.Barrier(9)

        def work(
            one: Classifier = classifier, begin: threading.Barrier = started, top: Any = expected
        ) -> str:
            begin.wait(PATIENCE_S)
            while True:
                try:
                    assert one.classify(grey(250)).top == top
                except EngineFailed as error:
                    return str(error)

        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(work) for _ in range(8)]
            started.wait(PATIENCE_S)
            classifier.close()
            classifier.close()
        expected_error = "the classifier is closed; open the Bundle again"
        assert {one.result() for one in futures} == {expected_error}


def test_a_trusted_key_is_for_files(make_bundle: MakeBundle) -> None:
    path = make_bundle("onnx")
    with pytest.raises(BundleUntrusted):
        Classifier(path, backend=FakeEngine(), trusted_key=bytes(32))
    with pytest.raises(ArgumentInvalid, match=r"give it to Bundle\.open"):
        Classifier(Bundle.open(path), backend=FakeEngine(), trusted_key=bytes(32))


def test_options_reach_the_engine(make_bundle: MakeBundle) -> None:
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Noting(FakeEngine):
        def open(self, data: bytes, manifest: Any, options: EngineOptions) -> Any:
            seen.append(options)
            return super().open(data, manifest, EngineOptions())

    classifier = Classifier(
        make_bundle("onnx"), backend=Noting(), threads=3, delegates=["gpu"], providers=["cuda"]
    )
    assert seen == [EngineOptions(3, ("gpu",), ("cuda",))]
    assert classifier.threads == 3


def test_an_isolated_engine_gives_the_same_answers(make_bundle: MakeBundle) -> None:
    path = make_bundle("tflite", "int8")
    pictures = [grey(level) for level in range(0, 256, 16)]
    with Classifier(path, threads=1) as classifier:
        expected = [one.top for one in classifier.classify_batch(pictures)]
    with Classifier(path, threads=1, isolate=True) as classifier:
        assert classifier.engine_name == "litert"
        assert [one.top for one in classifier.classify_batch(pictures)] == expected
    with pytest.raises(EngineFailed, match="cannot be isolated"):
        Classifier(make_bundle("onnx"), backend=FakeEngine(), isolate=True)


def test_the_decoder_is_the_one_that_was_asked_for(make_bundle: MakeBundle) -> None:
    """A picture of 640 x 640: the fast decoder scales it down while it reads it."""
    pil = pytest.importorskip("PIL.Image")
    waves = 127 + 100 * np.sin(np.arange(640) / 40)
    picture = np.stack([waves[None] + 0 * waves[:, None]] * 3, axis=2).astype(np.uint8)
    stream = io.BytesIO()
    pil.fromarray(picture).save(stream, "JPEG", quality=95)
    path = make_bundle("onnx")
    seen: list[Any] = []

    def scores(pixels: Any, classes: int) -> Any:
        seen.append(pixels[0].astype(int))
        return brightness_scores(pixels, classes)

    engine = FakeEngine(scores=scores)
    decoders: list[Any] = ["reference", "auto"]
    for decoder in decoders:
        with Classifier(path, backend=engine, decoder=decoder, threads=1) as classifier:
            classifier.classify(stream.getvalue())
    expected = load_pixels(stream.getvalue(), classifier.manifest.preprocessing)
    assert (seen[0] == expected).all()
    assert 0 < np.abs(seen[1] - expected).max() <= LARGEST_TOLERANCE
    with pytest.raises(ArgumentInvalid, match="expected 'auto' or 'reference'"):
        Classifier(path, decoder="fast")  # type: ignore[arg-type]
