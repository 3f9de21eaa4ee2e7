"""From a Bundle and a picture to labels."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from smidgen.runtime.bundle import Bundle
from smidgen.runtime.decisions import calibrated
from smidgen.runtime.engine import Engine, EngineOptions
from smidgen.runtime.engines import select_engine
from smidgen.runtime.errors import ArgumentInvalid, EngineFailed, NotABundle
from smidgen.runtime.manifest import Manifest
from smidgen.runtime.preprocessing import decode, load_pixels

if TYPE_CHECKING:
    from smidgen.runtime.engine import Pixels, Scores
    from smidgen.runtime.preprocessing import ImageSource


@dataclass(frozen=True)
class Prediction:
    """One label, its position in ``manifest.labels`` and its probability, 0..1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True)
class Timings:
    """Where the time of one answer went. In a batch, inference is shared evenly."""

    decode_ns: int
    preprocess_ns: int
    inference_ns: int


@dataclass(frozen=True)
class Classification:
    """The answer for one picture.

    ``top`` holds the best predictions, best first; equal scores keep the order of the labels.
    ``label`` and ``score`` are those of the first. ``abstained``: its score is below the
    manifest's ``abstain_below``, so that the label should not be acted upon.
    """

    label: str
    score: float
    top: tuple[Prediction, ...]
    abstained: bool
    timings: Timings


class Classifier:
    """A Bundle, ready to answer. For one thread at a time; closes as a context manager.

    >>> with Classifier("flowers-int8.tflite") as classifier:  # doctest: +SKIP
    ...     print(classifier.classify("rose.jpg").label)
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str], Bundle],
        *,
        backend: Union[str, Engine] = "auto",
        threads: int = 1,
    ) -> None:
        """Open and check a Bundle and load it into an engine.

        Args:
            path: the file, or a Bundle that is open already.
            backend: ``"auto"``, a name of ``engines.ENGINES``, or an engine object.
            threads: CPU threads of one inference.

        Raises:
            NotABundle, BundleDamaged: the file cannot be trusted.
            EngineMissing, EngineFailed: no engine, or it refuses the Bundle.
        """
        self.bundle = path if isinstance(path, Bundle) else Bundle.open(path)
        _check_input(self.bundle.manifest)
        engine = select_engine(backend, self.bundle.manifest)
        self.engine_name: str = engine.name
        self.engine_version: str = engine.version()
        self._session = engine.open(self.bundle.data, self.bundle.manifest, EngineOptions(threads))

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
        return self.classify_batch([image], top=top)[0]

    def classify_batch(
        self, images: Sequence[ImageSource], *, top: int = 5
    ) -> tuple[Classification, ...]:
        """Label several pictures in one run of the engine; they are all in memory at once.

        Raises as ``classify``, on the first picture that cannot be read.
        """
        if type(top) is not int or top < 1:
            raise ArgumentInvalid(f"top = {top!r}: expected a whole number of at least 1")
        if len(images) == 0:
            return ()
        pixels, spent = zip(*(self._timed_pixels(image) for image in images))
        start = time.perf_counter_ns()
        scores = calibrated(self.scores(np.stack(pixels)), self.manifest.temperature)
        inference_ns = (time.perf_counter_ns() - start) // len(images)
        return tuple(
            self._answer(row, top, Timings(decode_ns, preprocess_ns, inference_ns))
            for row, (decode_ns, preprocess_ns) in zip(scores, spent)
        )

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
        scores = self._session.run(np.ascontiguousarray(pixels))
        if scores.shape != (len(pixels), classes) or not np.isfinite(scores).all():
            raise EngineFailed(
                f"{self.engine_name} returned scores of shape {scores.shape}, or not finite: "
                f"expected ({len(pixels)}, {classes}) probabilities; run the selftest"
            )
        return scores

    def close(self) -> None:
        """Give the engine's memory back; afterwards only the manifest can be used."""
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

    def _timed_pixels(self, image: ImageSource) -> tuple[Pixels, tuple[int, int]]:
        start = time.perf_counter_ns()
        picture = image if isinstance(image, np.ndarray) else decode(image)
        decoded = time.perf_counter_ns()
        pixels = load_pixels(picture, self.manifest.preprocessing)
        return pixels, (decoded - start, time.perf_counter_ns() - decoded)

    def _answer(self, scores: Scores, top: int, timings: Timings) -> Classification:
        order = np.argsort(-scores, kind="stable")[:top]
        labels = self.manifest.labels
        best = tuple(Prediction(labels[i], int(i), float(scores[i])) for i in order)
        return Classification(
            label=best[0].label,
            score=best[0].score,
            top=best,
            abstained=best[0].score < self.manifest.abstain_below,
            timings=timings,
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
