"""From a Bundle and a picture to labels."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Optional, Union, get_args

import numpy as np

from smidgen.runtime import fast_pixels, tuning
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.decisions import shown_scores
from smidgen.runtime.engine import Engine, EngineOptions
from smidgen.runtime.engines import select_engine
from smidgen.runtime.errors import ArgumentInvalid, EngineFailed, NotABundle
from smidgen.runtime.manifest import Manifest
from smidgen.runtime.stream import FrameResult, MovingAverage, prepared, results

if TYPE_CHECKING:
    from smidgen.runtime.engine import Pixels, Scores
    from smidgen.runtime.image_files import ImageSource
    from smidgen.runtime.signatures import KeySource

    _Prepared = tuple[Pixels, tuple[int, int]]

GROUP = 8
"""Pictures of a batch that are decoded before the engine runs."""


@dataclass(frozen=True)
class Prediction:
    """One label, its position in ``manifest.labels`` and its probability, 0..1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True)
class Timings:
    """Where the time of one answer went.

    ``inference_ns`` is shared evenly in a batch, and includes the wait for other threads' turns.
    """

    decode_ns: int
    preprocess_ns: int
    inference_ns: int


@dataclass(frozen=True)
class Classification:
    """The answer for one picture.

    ``top`` holds the best predictions, best first, in the order of the model's own scores; equal
    ones keep the order of the labels. ``label`` and ``score`` are those of the first.
    ``abstained``: its score is below the manifest's ``abstain_below``, so that the label should not
    be acted upon.
    """

    label: str
    score: float
    top: tuple[Prediction, ...]
    abstained: bool
    timings: Timings


class Classifier:
    """A Bundle, ready to answer; closes as a context manager.

    Any number of threads may share one: they decode pictures side by side and take turns at the
    engine. ``close`` waits for the inference that is running; whoever comes later gets
    EngineFailed. What ``stream`` returns is for one thread. Not for use in a forked child.

    >>> with Classifier("flowers-int8.tflite") as classifier:  # doctest: +SKIP
    ...     print(classifier.classify("rose.jpg").label)
    """

    def __init__(  # noqa: PLR0913  (keyword-only: how it runs)
        self,
        path: Union[str, os.PathLike[str], Bundle],
        *,
        backend: Union[str, Engine] = "auto",
        threads: Union[int, str] = "auto",
        delegates: Sequence[str] = (),
        providers: Sequence[str] = (),
        decoder: fast_pixels.Decoder = "auto",
        trusted_key: Optional[KeySource] = None,
        isolate: bool = False,
    ) -> None:
        """Open and check a Bundle and load it into an engine.

        Args:
            path: the file, or a Bundle that is open already.
            backend: ``"auto"``, a name of ``engines.ENGINES``, or an engine object.
            threads: CPU threads of one inference; ``"auto"`` measures once per device and Bundle,
                before the second answer and for at most a second (see ``tuning``).
            delegates, providers: see ``engine.EngineOptions``.
            decoder: ``"auto"`` or ``"reference"``, see ``fast_pixels.load``.
            trusted_key: open nothing but a file signed with this key (see ``Bundle.open``).
            isolate: run the engine in a child process, whose death is an EngineFailed here.

        Raises:
            NotABundle, BundleDamaged, BundleUntrusted: the file cannot be trusted.
            EngineMissing, EngineFailed: no engine, or it refuses the Bundle or an option.
            ArgumentInvalid: ``decoder``, ``threads`` or the environment's ``SMIDGEN_THREADS``.
        """
        if decoder not in get_args(fast_pixels.Decoder):
            raise ArgumentInvalid(f"decoder = {decoder!r}: expected 'auto' or 'reference'")
        if isinstance(path, Bundle):
            if trusted_key is not None:
                raise ArgumentInvalid("trusted_key with an open Bundle: give it to Bundle.open")
            self.bundle = path
        else:
            self.bundle = Bundle.open(path, trusted_key=trusted_key)
        _check_input(self.bundle.manifest)
        engine = select_engine(backend, self.bundle.manifest)
        self.engine_name: str = engine.name
        self.engine_version: str = engine.version()
        if isolate:
            from smidgen.runtime.isolation import isolated

            engine = isolated(engine)
        options = EngineOptions(1, tuple(delegates), tuple(providers))
        self.options: EngineOptions = options  # but for the threads: see ``threads``
        self._decoder: fast_pixels.Decoder = decoder
        self._lock = threading.Lock()
        self._is_open = True
        self._session = tuning.TunedSession(
            lambda count: engine.open(
                self.bundle.data, self.bundle.manifest, replace(options, threads=count)
            ),
            tuning.choose(threads, self._identity(options, isolate)),
        )

    @property
    def threads(self) -> int:
        """CPU threads that one inference takes now."""
        return self._session.threads

    @property
    def manifest(self) -> Manifest:
        """What the Bundle says about itself."""
        return self.bundle.manifest

    def classify(self, image: ImageSource, *, top: int = 5) -> Classification:
        """Label one picture.

        Args:
            image: a path, the bytes of an image file, a Pillow image, or an array (see
                ``preprocessing.load_pixels``).
            top: how many predictions to return, at least 1; never more than there are labels.

        Raises:
            ImageError: the picture cannot be read.
            EngineFailed: the engine failed while running.
            ArgumentInvalid: ``top`` is not a whole number of at least 1.
        """
        _check_top(top)
        return self._answers([self._prepare(image)], top)[0]

    def classify_batch(
        self, images: Iterable[ImageSource], *, top: int = 5
    ) -> tuple[Classification, ...]:
        """Label several pictures: a list, an iterator, or ``(N, H, W, 3) uint8``.

        They are decoded and given to the engine in groups of 8; no more are in memory at once.
        Raises as ``classify``, on the first picture that cannot be read: no answer is returned.
        """
        _check_top(top)
        _check_several(images, "classify_batch()")
        rest = iter(images)
        answers: list[Classification] = []
        while group := [self._prepare(image) for image in itertools.islice(rest, GROUP)]:
            answers += self._answers(group, top)
        return tuple(answers)

    def stream(
        self,
        frames: Iterable[ImageSource],
        *,
        top: int = 5,
        smoothing: float = 0.0,
        drop: Optional[bool] = None,
        errors: Literal["raise", "yield"] = "raise",
    ) -> Iterator[FrameResult]:
        """Label frames one by one; the next one is decoded while the engine works on this one.

        Threads begin with the first ``next`` and end with the generator, however it ends (a source
        that is blocked is waited for one second). ``frames`` is not closed.

        Args:
            frames: any iterable of what ``classify`` takes; ``frames_of`` opens cameras and videos.
            top: as for ``classify``.
            smoothing: ``a`` of the exponential moving average ``s_t = a * s_(t-1) + (1 - a) * p_t``
                of the answers' probabilities, 0 <= a < 1. Scores, their order and ``abstained`` are
                by s: ``a = 0.8`` weighs about the last ``1 / (1 - a) = 5`` answers.
            drop: True: frames that come while the engine is busy are passed over, so that an
                answer is about the newest one. False: the source waits, every frame is answered.
                None: ``frames.live`` (True for a camera of ``frames_of``), else False.
            errors: a frame that cannot be read ends the stream with its ImageError (``"raise"``),
                or is a result of its own (``"yield"``).

        Raises:
            ArgumentInvalid: at the call.
            ImageError: with ``errors="raise"``, for a frame; always for a camera that fails.
            EngineFailed: the engine failed, or the classifier was closed.
        """
        _check_top(top)
        _check_several(frames, "stream()")
        if not 0 <= smoothing < 1:
            raise ArgumentInvalid(f"smoothing = {smoothing!r}: expected at least 0 and below 1")
        if errors not in ("raise", "yield"):
            raise ArgumentInvalid(f"errors = {errors!r}: expected 'raise' or 'yield'")
        average = MovingAverage(smoothing) if smoothing else None

        def label(item: _Prepared) -> Classification:
            return self._answers([item], top, average)[0]

        drops = getattr(frames, "live", False) is True if drop is None else drop
        ahead = prepared(frames, self._prepare, drop=drops)
        return results(ahead, label, errors == "raise")

    def scores(self, pixels: Pixels) -> Scores:
        """The model's own probabilities for input tensors, without decoding or resizing.

        ``classify`` applies the manifest's ``temperature`` to them.

        Args:
            pixels: ``(N, height, width, 3) uint8, RGB, 0..255`` as ``load_pixels`` makes them.

        Returns:
            ``(N, classes) float32``, in the order of ``manifest.labels``.

        Raises:
            ArgumentInvalid: another shape or dtype.
            EngineFailed: the engine failed, or its scores are not finite numbers.
        """
        size = self.manifest.preprocessing
        expected = (size.height, size.width, 3)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != expected:
            raise ArgumentInvalid(
                f"pixels are {pixels.dtype} {pixels.shape}: expected uint8 (N, {size.height}, "
                f"{size.width}, 3), as load_pixels makes them"
            )
        classes = len(self.manifest.labels)
        if len(pixels) == 0:
            return np.zeros((0, classes), np.float32)
        with self._lock:
            if not self._is_open:
                raise EngineFailed("the classifier is closed; open the Bundle again")
            scores = self._session.run(np.ascontiguousarray(pixels))
        if scores.shape != (len(pixels), classes) or not np.isfinite(scores).all():
            raise EngineFailed(
                f"{self.engine_name} returned scores of shape {scores.shape}, or not finite: "
                f"expected ({len(pixels)}, {classes}) probabilities; run the selftest"
            )
        return scores

    def tune(self) -> None:
        """Measure now what ``threads="auto"`` would before the second answer."""
        size = self.manifest.preprocessing
        with self._lock:
            self._session.tune(np.zeros((1, size.height, size.width, 3), np.uint8))

    def close(self) -> None:
        """Give the engine's memory back; afterwards only the manifest can be used."""
        with self._lock:
            self._is_open = False
            self._session.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def _identity(self, *options: object) -> tuple[str, ...]:
        """What the best number of threads depends on, beside the machine."""
        payload = self.manifest.payload_sha256
        return (payload, self.engine_name, self.engine_version, repr(options))

    def _prepare(self, image: ImageSource) -> _Prepared:
        return fast_pixels.timed(image, self.manifest.preprocessing, decoder=self._decoder)

    def _answers(
        self, group: Sequence[_Prepared], top: int, average: Optional[MovingAverage] = None
    ) -> list[Classification]:
        """One run of the engine. Labels are ranked by what the model says, or the average."""
        start = time.perf_counter_ns()
        alone = len(group) == 1  # a view then, no copy
        ranks = self.scores(group[0][0][np.newaxis] if alone else np.stack([g[0] for g in group]))
        shown = shown_scores(ranks, self.manifest)
        inference_ns = (time.perf_counter_ns() - start) // len(group)
        if average is not None:
            ranks = shown = np.stack([average.add(row) for row in shown])
        return [
            self._answer(rank, show, top, Timings(*spent, inference_ns))
            for rank, show, (_, spent) in zip(ranks, shown, group)
        ]

    def _answer(self, ranks: Scores, shown: Scores, top: int, timings: Timings) -> Classification:
        labels = self.manifest.labels
        best = tuple(Prediction(labels[i], i, float(shown[i])) for i in highest(ranks, top))
        return Classification(
            label=best[0].label,
            score=best[0].score,
            top=best,
            abstained=best[0].score < self.manifest.abstain_below,
            timings=timings,
        )


def highest(scores: Scores, count: int) -> list[int]:
    """The positions of the ``count`` highest of ``(classes,)`` scores, as a stable sort has them.

    Only those that can be among them are sorted.
    """
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        chosen = np.flatnonzero(scores >= least)
    else:
        chosen = np.arange(len(scores))
    order: list[int] = chosen[np.argsort(-scores[chosen], kind="stable")[:count]].tolist()
    return order


def _check_top(top: int) -> None:
    if type(top) is not int or top < 1:
        raise ArgumentInvalid(f"top = {top!r}: expected a whole number of at least 1")


def _check_several(images: object, call: str) -> None:
    """Refuse one picture where several are expected: a str is an iterable, too."""
    shape = getattr(images, "shape", None)
    one = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike))
    if one or (shape is not None and len(shape) != 4) or not isinstance(images, Iterable):
        what = type(images).__name__ + (f" of shape {shape}" if shape is not None else "")
        raise ArgumentInvalid(
            f"{call} got {what}: expected several pictures, as a list or an iterator; "
            "classify() takes one"
        )


def _check_input(manifest: Manifest) -> None:
    """This runtime feeds RGB pixels, rows first, in the manifest's own size."""
    spec, size = manifest.input, manifest.preprocessing
    shape = (size.height, size.width, 3)
    codes = {"uint8": 0, "int8": -128, "float32": 0}
    is_pixel = spec.scale == 1.0 and codes.get(spec.dtype) == spec.zero_point
    if not is_pixel or spec.layout != "NHWC" or tuple(spec.shape[1:]) != shape:
        raise NotABundle(
            f"the model's input is {spec.dtype} {spec.layout} {spec.shape} with scale "
            f"{spec.scale:g} and zero point {spec.zero_point}: this runtime feeds pixels 0..255 as "
            f"NHWC (N, {size.height}, {size.width}, 3); export it again"
        )
