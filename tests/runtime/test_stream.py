"""Streams: order, overlap, dropped frames, errors, smoothing, ends; cameras through OpenCV."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import (
    ArgumentInvalid,
    Classifier,
    EngineFailed,
    FrameResult,
    ImageError,
    ImageUnreadable,
    frames_of,
)
from smidgen.runtime.fake import FakeEngine, brightness_scores
from smidgen.runtime.stream import HandOver, MovingAverage

MakeBundle = Callable[..., Path]
PATIENCE_S = 60.0


def grey(level: int) -> Any:
    return np.full((8, 8, 3), level, np.uint8)


LEVELS = (5, 250, 128, 130, 4, 251)
LABELS = ["red", "blue", "grün", "grün", "red", "blue"]


@pytest.fixture
def classifier(make_bundle: MakeBundle) -> Classifier:
    return Classifier(make_bundle("onnx"), backend=FakeEngine(), threads=1)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("drop", [None, False])
def test_every_frame_is_answered_in_order(classifier: Classifier, drop: Any) -> None:
    found = list(classifier.stream((grey(level) for level in LEVELS), drop=drop, top=2))
    assert [one.answer.label for one in found] == LABELS
    assert [(one.index, one.dropped, one.error) for one in found] == [
        (index, 0, None) for index in range(6)
    ]
    assert all(len(one.answer.top) == 2 for one in found)
    assert all(one.answer.timings.preprocess_ns > 0 for one in found)


def test_what_a_stream_takes(classifier: Classifier, photo_png: bytes, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    file = tmp_path / "photo.png"
    file.write_bytes(photo_png)
    frames = [grey(250), photo_png, str(file), file, pil.open(file)]
    labels = [one.answer.label for one in classifier.stream(frames)]
    assert labels == ["blue", "red", "red", "red", "red"]
    stacked = np.stack([grey(level) for level in LEVELS])
    assert [one.answer.label for one in classifier.stream(stacked)] == LABELS
    assert list(classifier.stream([])) == []


@pytest.mark.parametrize("frames", ["a.png", b"\xff\xd8", Path("a.png"), grey(1), 3])
def test_one_picture_is_no_stream(classifier: Classifier, frames: Any) -> None:
    with pytest.raises(ArgumentInvalid, match=r"stream\(\) got .*expected several pictures"):
        classifier.stream(frames)


@pytest.mark.parametrize(
    "argument",
    [{"top": 0}, {"smoothing": 1.0}, {"smoothing": -0.1}, {"smoothing": float("nan")},
     {"errors": "ignore"}],
)  # fmt: skip
def test_arguments_are_checked_at_the_call(classifier: Classifier, argument: Any) -> None:
    with pytest.raises(ArgumentInvalid, match=f"{next(iter(argument))} = "):
        classifier.stream([], **argument)


def test_decoding_overlaps_inference(make_bundle: MakeBundle) -> None:
    """The engine's first run ends when the source was asked for two frames more."""
    asked = [threading.Event() for _ in range(4)]
    in_time: list[bool] = []

    def source() -> Iterator[Any]:
        for event in asked:
            event.set()
            yield grey(5)

    def scores(pixels: Any, classes: int) -> Any:
        if not in_time:
            in_time.append(asked[2].wait(PATIENCE_S))
        return brightness_scores(pixels, classes)

    classifier = Classifier(make_bundle("onnx"), backend=FakeEngine(scores=scores), threads=1)
    assert len(list(classifier.stream(source()))) == 4
    assert in_time == [True]


def test_frames_wait_in_a_bounded_queue(classifier: Classifier) -> None:
    """One with the engine's thread, two in the queue, one in the hands of the decoding thread."""
    taken: list[int] = []

    def source() -> Iterator[Any]:
        for index in range(50):
            taken.append(index)
            yield grey(5)

    for one in classifier.stream(source()):
        assert taken[-1] - one.index <= 4
    assert len(taken) == 50


def test_a_live_source_never_waits(make_bundle: MakeBundle) -> None:
    """While the engine works on the first frame, 100 come; the last of them is answered."""
    all_taken = threading.Event()

    def source() -> Iterator[Any]:
        for _ in range(100):
            yield grey(5)
        all_taken.set()

    def scores(pixels: Any, classes: int) -> Any:
        assert all_taken.wait(PATIENCE_S)
        return brightness_scores(pixels, classes)

    classifier = Classifier(make_bundle("onnx"), backend=FakeEngine(scores=scores), threads=1)
    found = list(classifier.stream(source(), drop=True))
    assert found[-1].index == 99
    # the first one, and one in each of: the queue, the decoding thread, the slot behind the source
    assert 1 <= len(found) <= 4
    assert sum(one.dropped for one in found) + len(found) == 100
    places = [one.index for one in found]
    assert [after - before - 1 for before, after in zip([-1, *places], places)] == [
        one.dropped for one in found
    ]


def test_the_newest_item_wins_where_items_are_dropped() -> None:
    newest: HandOver[int] = HandOver(1, drop=True)
    assert [newest.put(index) for index in range(9)] == [True] * 9
    newest.end()
    assert list(newest) == [8]
    all_of_them: HandOver[int] = HandOver(9, drop=False)
    assert [all_of_them.put(index) for index in range(9)] == [True] * 9
    all_of_them.end(ValueError("broken"))
    seen: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        seen.extend(iter(all_of_them.__iter__().__next__, -1))
    all_of_them.close()
    assert all_of_them.put(1) is False


def test_a_source_says_whether_it_is_live(classifier: Classifier) -> None:
    class Source(list[Any]):
        live = True

    frames = Source([grey(5)] * 300)
    found = list(classifier.stream(frames))
    assert found[-1].index == 299
    assert [one.index for one in classifier.stream(frames, drop=False)] == list(range(300))


@pytest.mark.parametrize("drop", [False, True])
def test_a_frame_that_cannot_be_read(classifier: Classifier, drop: bool) -> None:
    frames = [grey(5), b"no picture", grey(250)]
    stream = classifier.stream(frames, errors="yield")
    found = list(stream)
    assert [one.answer.label for one in (found[0], found[2])] == ["red", "blue"]
    bad = found[1]
    assert (bad.index, bad.classification) == (1, None)
    assert isinstance(bad.error, ImageUnreadable)
    with pytest.raises(ImageUnreadable, match="10 bytes"):
        _ = bad.answer
    stream = classifier.stream(frames if not drop else frames[:2], drop=drop)
    with pytest.raises(ImageUnreadable, match="10 bytes"):
        list(stream)
    assert list(stream) == []


def test_what_the_source_raises_comes_behind_its_frames(classifier: Classifier) -> None:
    def source() -> Iterator[Any]:
        yield grey(5)
        yield grey(250)
        raise OSError("the card was pulled")

    seen: list[FrameResult] = []
    with pytest.raises(OSError, match="card was pulled"):
        for one in classifier.stream(source()):
            seen.append(one)
    assert [one.answer.label for one in seen] == ["red", "blue"]


def test_smoothing_is_the_average_that_it_says(make_bundle: MakeBundle) -> None:
    path = make_bundle("onnx", abstain_below=0.6)
    with Classifier(path, backend=FakeEngine(), threads=1) as classifier:
        frames = [grey(5), grey(250), grey(250), grey(250)]
        plain = [one.answer for one in classifier.stream(frames)]
        smooth = [one.answer for one in classifier.stream(frames, smoothing=0.6)]
    assert [answer.label for answer in plain] == ["red", "blue", "blue", "blue"]
    # red: .9, .6 * .9 + .4 * .05 = .56, .356, .2336; blue: .05, .39, .594, .7164
    assert [answer.label for answer in smooth] == ["red", "red", "blue", "blue"]
    assert [answer.score for answer in smooth] == pytest.approx([0.9, 0.56, 0.594, 0.7164])
    assert [answer.abstained for answer in smooth] == [False, True, True, False]
    assert [answer.abstained for answer in plain] == [False] * 4
    wrong = MovingAverage(0.4)  # a fault planted: the weights exchanged
    wrong.add(np.array([0.9, 0.05], np.float32))
    assert wrong.add(np.array([0.05, 0.9], np.float32))[0] != pytest.approx(0.56, abs=0.1)


@pytest.mark.parametrize("drop", [False, True])
def test_a_stream_that_is_left_early_stops_its_threads(classifier: Classifier, drop: bool) -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield grey(5)

    before = threading.active_count()
    stream = classifier.stream(endless(), drop=drop)
    assert threading.active_count() == before  # begins with the first next()
    next(stream)
    assert threading.active_count() > before
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    for one in classifier.stream(endless(), drop=drop):
        if one.index >= 3:
            break
    assert threading.active_count() == before


def test_a_source_that_blocks_ends_its_thread_with_its_next_frame(classifier: Classifier) -> None:
    go_on = threading.Event()

    def source() -> Iterator[Any]:
        yield grey(5)
        go_on.wait(PATIENCE_S)
        yield grey(5)

    stream = classifier.stream(source())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    (left,) = (one for one in threading.enumerate() if one.name == "smidgen-stream")
    assert left.daemon
    go_on.set()
    left.join(PATIENCE_S)
    assert not left.is_alive()


def test_ctrl_c_ends_a_stream_that_waits(classifier: Classifier) -> None:
    go_on = threading.Event()

    def source() -> Iterator[Any]:
        yield grey(5)
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait(PATIENCE_S)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        for one in classifier.stream(source()):
            seen.append(one.index)
    assert seen in ([0], [])  # the signal can come before the first answer
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "smidgen-stream":
            thread.join(PATIENCE_S)


def test_a_classifier_that_is_closed_ends_its_stream(classifier: Classifier) -> None:
    stream = classifier.stream([grey(5)] * 9)
    next(stream)
    classifier.close()
    with pytest.raises(EngineFailed, match="closed"):
        next(stream)


class FakeCapture:
    """Satisfies ``Capture``: ``cv2.VideoCapture`` without OpenCV."""

    def __init__(self, frames: list[Any], opens: bool = True) -> None:
        self.frames, self.opens, self.released = list(frames), opens, 0

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def read(self) -> tuple[bool, Any]:
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self) -> None:
        self.released += 1


def test_a_cameras_frames_are_rgb_and_live(classifier: Classifier) -> None:
    blue_first = np.zeros((8, 8, 3), np.uint8)
    blue_first[..., 0] = 200
    capture = FakeCapture([blue_first, grey(250)[..., 0]])
    with frames_of(0, capture=capture) as frames:
        assert frames.live
        assert next(frames)[0, 0].tolist() == [0, 0, 200]
        assert next(frames).shape == (8, 8)
        with pytest.raises(ImageUnreadable, match="camera 0 gives no frames; is it unplugged"):
            next(frames)
        assert capture.released == 1
        assert list(frames) == []
    assert capture.released == 1
    stream = classifier.stream(frames_of(1, capture=FakeCapture([grey(250)])))
    assert next(stream).answer.label == "blue"
    with pytest.raises(ImageUnreadable, match="camera 1 gives no frames"):
        next(stream)


def test_a_capture_that_raises() -> None:
    class Broken(FakeCapture):
        def read(self) -> tuple[bool, Any]:
            raise RuntimeError("libav\n  gave up")

    with (
        frames_of(0, capture=Broken([])) as frames,
        pytest.raises(ImageUnreadable, match="camera 0: libav gave up"),
    ):
        next(frames)


def test_a_camera_that_does_not_open() -> None:
    capture = FakeCapture([], opens=False)
    with pytest.raises(ImageUnreadable, match="camera 7 cannot be opened by OpenCV; check its"):
        frames_of(7, capture=capture)
    assert capture.released == 1


@pytest.mark.parametrize(
    "source",
    ["rtsp://camera/1", "http://x/y.mp4", "none.avi", "", ".", "a\0b", "a" * 5000, 10**30, -1],
)
def test_what_is_no_file_is_no_source(source: Any) -> None:
    with pytest.raises(ImageUnreadable, match="; expected a video file or a camera's number"):
        frames_of(source)


def test_a_video_file(classifier: Classifier, tmp_path: Path) -> None:
    """Every frame of a file is answered; Motion JPEG keeps these greys within 4 levels."""
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "ein größerer Film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for level in LEVELS:
        picture = np.full((48, 64, 3), level, np.uint8)
        picture[..., 2] = max(0, level - 60)  # red is the last one in OpenCV
        writer.write(picture)
    writer.release()
    with frames_of(file) as frames:
        assert not frames.live
        means = [frame.mean(axis=(0, 1)) for frame in frames]
    assert len(means) == 6
    for level, (red, green, blue) in zip(LEVELS, means):
        assert [red, green, blue] == pytest.approx([max(0, level - 60), level, level], abs=4)
    assert abs(means[1][2] - means[1][0]) > 50  # red and blue exchanged would be seen
    found = list(classifier.stream(frames_of(str(file))))
    assert [one.index for one in found] == list(range(6))
    text = tmp_path / "text.avi"
    text.write_text("no video")
    with pytest.raises(ImageUnreadable, match="cannot be opened by OpenCV; check that it is a vid"):
        frames_of(text)


def test_without_opencv_the_extra_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['cv2'] = None\n"
        "from smidgen.runtime import ImageError, frames_of\n"
        "try:\n    frames_of(0)\nexcept ImageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, cwd=tmp_path
    )
    assert 'run `pip install "smidgen-runtime[camera]"`' in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert issubclass(ImageUnreadable, ImageError)
