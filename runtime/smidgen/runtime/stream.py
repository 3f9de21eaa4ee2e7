"""Frames, one after the other: the next one is decoded while the engine works on this one.

``Classifier.stream`` is what programs call; ``frames_of`` opens a camera or a video file.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, Protocol, TypeVar, Union

from smidgen.runtime.errors import ImageError, ImageUnreadable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from smidgen.runtime.classifier import Classification
    from smidgen.runtime.preprocessing import ImageSource

    Scores = npt.NDArray[np.float32]

AHEAD = 2
"""Frames that wait for the engine, ready, where none is dropped."""
JOIN_S = 1.0
"""How long the end of a stream waits for a source that does not give its next frame."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FrameResult:
    """A frame's ``classification``, or the ``error`` for which there is none.

    ``index`` counts the source's frames from 0; ``dropped`` those passed over just before this one.
    """

    index: int
    dropped: int
    classification: Optional[Classification]
    error: Optional[ImageError] = None

    @property
    def answer(self) -> Classification:
        """The classification. Raises ``error`` where there is one."""
        if self.classification is None:
            raise self.error or ImageError(f"frame {self.index} has no answer")
        return self.classification


class MovingAverage:
    """``s_1 = p_1``, ``s_t = a * s_(t-1) + (1 - a) * p_t``; ``t`` counts answers, not seconds."""

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._value: Optional[Scores] = None

    def add(self, probabilities: Scores) -> Scores:
        """``(classes,) float32`` in and out."""
        if self._value is not None:
            probabilities = self._weight * self._value + (1 - self._weight) * probabilities
        self._value = probabilities
        return probabilities


class HandOver(Generic[Item]):
    """A queue of ``room`` items; ``put`` into a full one waits, or with ``drop`` pushes one out."""

    def __init__(self, room: int, *, drop: bool) -> None:
        self._room, self._drop = room, drop
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: Optional[BaseException] = None

    def put(self, item: Item) -> bool:
        """False: nobody wants more."""
        with self._changed:
            while len(self._items) >= self._room and not self._closed:
                if self._drop:
                    self._items.popleft()
                else:
                    self._changed.wait()
            if not self._closed:
                self._items.append(item)
            self._changed.notify_all()
            return not self._closed

    def end(self, error: Optional[BaseException] = None) -> None:
        """The writer leaves; ``error`` is raised behind the last item."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """The reader leaves: ``put`` does not wait any longer."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not (self._items or self._ended or self._closed):
                    self._changed.wait(1.0)  # a timeout lets Ctrl-C through on Windows
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def prepared(
    frames: Iterable[ImageSource], prepare: Callable[[ImageSource], Result], *, drop: bool
) -> Generator[tuple[int, Union[Result, ImageError]], None, None]:
    """Frames' indexes and ``prepare`` of them, made by a thread ahead of the reader.

    With ``drop`` a second thread takes frames as fast as they come, and the newest one wins at
    either step. A frame's ImageError stands in its place; what the source raises is raised here.
    """

    def work(numbered: tuple[int, ImageSource]) -> tuple[int, Union[Result, ImageError]]:
        try:
            return numbered[0], prepare(numbered[1])
        except ImageError as error:
            return numbered[0], error

    numbered: Iterable[tuple[int, ImageSource]] = enumerate(frames)
    ready: HandOver[tuple[int, Union[Result, ImageError]]] = HandOver(
        1 if drop else AHEAD, drop=drop
    )
    queues: list[HandOver[Any]] = [ready]
    threads = [_Pump(numbered, ready, work)]
    if drop:
        newest: HandOver[tuple[int, ImageSource]] = HandOver(1, drop=True)
        queues.append(newest)
        threads = [_Pump(numbered, newest, lambda item: item), _Pump(newest, ready, work)]
    try:
        for thread in threads:
            thread.start()
        yield from ready
    finally:
        for queue in queues:
            queue.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join(JOIN_S)


def results(
    ahead: Generator[tuple[int, Union[Result, ImageError]], None, None],
    label: Callable[[Result], Classification],
    raises: bool,
) -> Iterator[FrameResult]:
    """What ``label`` says of each of the ``prepared`` frames; closes ``ahead``."""
    before = -1
    with contextlib.closing(ahead):
        for index, item in ahead:
            dropped, before = index - before - 1, index
            if not isinstance(item, ImageError):
                yield FrameResult(index, dropped, label(item))
            elif raises:
                raise item
            else:
                yield FrameResult(index, dropped, None, item)


class _Pump(threading.Thread):
    """Carries ``work`` of each item from a source to a queue."""

    def __init__(
        self, source: Iterable[Any], target: HandOver[Any], work: Callable[[Any], Any]
    ) -> None:
        super().__init__(name="smidgen-stream", daemon=True)
        self._parts = source, target, work

    def run(self) -> None:
        source, target, work = self._parts
        del self._parts  # the source is given back with the last frame, not with this object
        error: Optional[BaseException] = None
        try:
            for item in source:
                if not target.put(work(item)):
                    break
        except BaseException as failure:  # whatever it is, the reader shall know
            error = failure
        finally:
            target.end(error)


class Capture(Protocol):
    """What ``frames_of`` needs of ``cv2.VideoCapture``."""

    def isOpened(self) -> bool:  # noqa: N802  (OpenCV's name)
        ...

    def read(self) -> tuple[bool, Any]:
        """Whether there was a frame; ``(H, W, 3) uint8, BGR`` or ``(H, W)`` grey."""
        ...

    def release(self) -> None: ...


class VideoFrames:
    """Frames as ``(H, W, 3) uint8, RGB, 0..255`` (grey: ``(H, W)``); a context manager.

    ``live``: a camera, whose frames do not wait.
    """

    def __init__(self, capture: Capture, name: str, *, live: bool) -> None:
        """Raises ImageUnreadable when ``capture`` did not open."""
        self.live = live
        self._capture, self._name, self._lock = capture, name, threading.Lock()
        self._is_open = capture.isOpened()
        if not self._is_open:
            capture.release()
            advice = "its number and permissions" if live else "that it is a video"
            raise ImageUnreadable(f"{name} cannot be opened by OpenCV; check {advice}")

    def __iter__(self) -> VideoFrames:
        return self

    def __next__(self) -> npt.NDArray[np.uint8]:
        with self._lock:  # close() must not pull the device from under a read
            was_open = self._is_open
            try:
                got, frame = self._capture.read() if was_open else (False, None)
            except Exception as error:  # cv2.error derives from Exception alone
                raise ImageUnreadable(f"{self._name}: {' '.join(str(error).split())}") from error
        if got and frame is not None:
            pixels: npt.NDArray[np.uint8] = frame if frame.ndim == 2 else frame[:, :, ::-1]
            return pixels
        self.close()
        if was_open and self.live:
            raise ImageUnreadable(f"{self._name} gives no frames; is it unplugged or in use?")
        raise StopIteration

    def close(self) -> None:
        """Give the camera or the file back. Closing twice is fine."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._capture.release()

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def frames_of(
    source: Union[int, str, os.PathLike[str]], *, capture: Optional[Capture] = None
) -> VideoFrames:
    """The frames of a camera or a video file, for ``Classifier.stream``.

    Args:
        source: a camera's number from 0, its device file, or a video file; no network address.
        capture: what to use instead of ``cv2.VideoCapture``.

    Raises:
        ImageUnreadable: no such camera or file, or OpenCV cannot read it.
        ImageError: OpenCV is not installed; it is the extra ``camera``.
    """
    is_camera = isinstance(source, int)
    name = f"camera {source}" if isinstance(source, int) else os.fsdecode(source)
    try:
        if isinstance(source, int) and not 0 <= source < 10_000:
            raise ValueError("no such camera")
        mode = 0 if is_camera else Path(name).stat().st_mode
        is_camera = is_camera or stat.S_ISCHR(mode)
        if not is_camera and not stat.S_ISREG(mode):
            raise ValueError("not a file")
        opened: Capture = capture or _video_capture(source)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageUnreadable(
            f"{name[:200]}: {reason}; expected a video file or a camera's number"
        ) from error
    return VideoFrames(opened, name, live=is_camera)


def _video_capture(source: Union[int, str, os.PathLike[str]]) -> Capture:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise ImageError(
            f"a camera or video needs OpenCV, which does not import ({error}): "
            'run `pip install "smidgen-runtime[camera]"`'
        ) from error
    # An absolute path is no address and no pattern of file names to OpenCV's readers.
    name = source if isinstance(source, int) else str(Path(source).resolve())
    capture: Capture = cv2.VideoCapture(name)
    return capture
