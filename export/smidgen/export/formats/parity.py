"""Parity: two files of one network answer alike, in the runtimes that will run them.

Pure comparisons of scores, and a runner that gets the scores from child processes (a bad file can
kill an interpreter). Three gates:

- Keras float against a float file: the largest difference of a probability, at most 1e-4.
- int8 TFLite against int8 ONNX, which hold the same integers: share of equal top-1, and largest
  difference of a probability. Kernels round ties differently, which adds up over layers.
- Every batch size that a file promises: the same rows as one by one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import ConversionError
from smidgen.export.formats.child import run_child

FLOAT_TOLERANCE = 1e-4
"""Of a probability: float32 rounding in another order of additions."""

BATCH_TOLERANCE = 1e-5
"""Of a probability: kernels may add in another order for another batch."""

LEAST_SAME_TOP1 = 0.98
MOST_SCORE_DIFFERENCE = 0.1
"""int8 against int8: what ties of rounding may change. Lite0 of 1,000 classes: 1.0 and 0.002.

Measured for trained networks: up to 0.011, with float layers 0.02. Not closer, as in a network of
little signal ties add up: untrained small ones reach 0.07 to 0.3 with right files.
"""

BATCHES = (1, 2, 7)
"""Checked where any batch is allowed."""

ModelFormat = Literal["tflite", "onnx"]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class FloatParity:
    """A float file against the Keras model: differences of probabilities over all answers."""

    images: int
    max_difference: float
    mean_difference: float
    tolerance: float = FLOAT_TOLERANCE

    @property
    def is_equal(self) -> bool:
        """Whether the largest difference is within the tolerance."""
        return self.max_difference <= self.tolerance


@dataclass(frozen=True)
class IntegerParity:
    """int8 ONNX against int8 TFLite.

    ``same_top1``: share of images, 0..1, for which the ONNX file's first class has the top score of
    the TFLite file (whose scores have steps of 1/256, so that two classes may share it).
    """

    images: int
    same_top1: float
    max_score_difference: float
    least_same_top1: float = LEAST_SAME_TOP1
    most_score_difference: float = MOST_SCORE_DIFFERENCE

    @property
    def is_equal(self) -> bool:
        """Whether both are within their limits."""
        is_near = self.max_score_difference <= self.most_score_difference
        return is_near and self.same_top1 >= self.least_same_top1


@dataclass(frozen=True)
class BatchParity:
    """Batches against rows one by one: largest difference of a probability."""

    batches: tuple[int, ...]
    max_difference: float
    tolerance: float = BATCH_TOLERANCE

    @property
    def is_equal(self) -> bool:
        """Whether the largest difference is within the tolerance."""
        return self.max_difference <= self.tolerance


class Runner(Protocol):
    """Runs model files on pixels."""

    def scores(
        self, model: bytes, model_format: ModelFormat, pixels: NDArray[np.uint8], batch: int, /
    ) -> Scores:
        """Probabilities ``(N, classes) float32`` for ``(N, H, W, 3) uint8``, ``batch`` at a time.

        Raises:
            CandidateFailed: the runtime refused the file, or crashed.
        """


@dataclass(frozen=True)
class ChildRunner:
    """Runs each file in a process of its own, on one thread."""

    worker: tuple[str, ...] = (sys.executable, "-P", "-m", "smidgen.export.formats.parity_worker")
    timeout_seconds: float = 600.0

    def scores(
        self, model: bytes, model_format: ModelFormat, pixels: NDArray[np.uint8], batch: int
    ) -> Scores:
        """See Runner."""
        with tempfile.TemporaryDirectory(prefix="smidgen-parity-") as folder:
            file, task, out = (Path(folder, name) for name in ("model", "pixels.npy", "out.npy"))
            file.write_bytes(model)
            np.save(task, pixels)
            command = [*self.worker, model_format, str(file), str(task), str(batch), str(out)]
            what = f"the .{model_format} file"
            run_child(command, what, timeout_seconds=self.timeout_seconds, engine="its own runtime")
            return np.asarray(np.load(out), np.float32)


@dataclass(frozen=True)
class FakeRunner:
    """For tests: the scores for each batch size are given, whatever the file and the pixels."""

    by_batch: Mapping[int, Scores]

    def scores(
        self, _model: bytes, _model_format: ModelFormat, _pixels: NDArray[np.uint8], batch: int
    ) -> Scores:
        """See Runner."""
        return self.by_batch[batch]


def compare_float(
    reference: Scores, scores: Scores, tolerance: float = FLOAT_TOLERANCE
) -> FloatParity:
    """A float file's probabilities against the Keras model's, both ``(N, classes)``.

    Raises:
        ConversionError: the shapes differ, or there are no answers.
    """
    _check_shapes(reference, scores)
    differences = np.abs(reference.astype(np.float64) - scores)
    return FloatParity(len(scores), _largest(differences), float(differences.mean()), tolerance)


def compare_integer(tflite: Scores, onnx: Scores) -> IntegerParity:
    """int8 TFLite's probabilities against int8 ONNX's, both ``(N, classes)``.

    Raises:
        ConversionError: the shapes differ, or there are no answers.
    """
    _check_shapes(tflite, onnx)
    rows = np.arange(len(tflite))
    same = float((tflite[rows, onnx.argmax(axis=1)] == tflite.max(axis=1)).mean())
    return IntegerParity(len(onnx), same, _largest(np.abs(tflite.astype(np.float64) - onnx)))


def compare_batches(one_by_one: Scores, batched: Sequence[tuple[int, Scores]]) -> BatchParity:
    """Rows one by one against the same rows in batches: ``(batch size, scores)`` each.

    Raises:
        ConversionError: the shapes differ, or there are no answers.
    """
    worst = 0.0
    for _, scores in batched:
        _check_shapes(one_by_one, scores)
        worst = max(worst, _largest(np.abs(one_by_one.astype(np.float64) - scores)))
    return BatchParity(tuple(size for size, _ in batched), worst)


def check_float(
    reference: Scores,
    model: bytes,
    model_format: ModelFormat,
    pixels: NDArray[np.uint8],
    runner: Runner | None = None,
) -> FloatParity:
    """Run a float file on ``pixels (N, H, W, 3) uint8`` and compare with the Keras model.

    Raises:
        CandidateFailed: the file does not run.
    """
    scores = (runner or ChildRunner()).scores(model, model_format, pixels, 1)
    return compare_float(reference, scores)


def check_integer(
    tflite: bytes, onnx: bytes, pixels: NDArray[np.uint8], runner: Runner | None = None
) -> IntegerParity:
    """Run both int8 files on the same ``pixels (N, H, W, 3) uint8`` and compare them.

    Raises:
        CandidateFailed: a file does not run.
    """
    child = runner or ChildRunner()
    return compare_integer(
        child.scores(tflite, "tflite", pixels, 1), child.scores(onnx, "onnx", pixels, 1)
    )


def check_batches(
    model: bytes,
    model_format: ModelFormat,
    batch: int,
    pixels: NDArray[np.uint8],
    runner: Runner | None = None,
) -> BatchParity:
    """Run a file with every batch size that it declares and compare with one by one.

    Args:
        model: the file.
        model_format: its format.
        batch: the first size of the manifest's input shape; -1 is any: 1, 2 and 7 are tried.
        pixels: ``(N, H, W, 3) uint8``; N of 14 gives two batches of 7.
        runner: what runs the files; None: child processes.

    Raises:
        CandidateFailed: the file does not run with one of the sizes.
    """
    child = runner or ChildRunner()
    sizes = BATCHES if batch == -1 else (batch,)
    first = child.scores(model, model_format, pixels, sizes[0])
    rest = [(size, child.scores(model, model_format, pixels, size)) for size in sizes[1:]]
    return compare_batches(first, [(sizes[0], first), *rest])


def require_parity(parity: FloatParity | IntegerParity | BatchParity, what: str) -> None:
    """Raises ConversionError with the figures where ``parity`` is outside its limits."""
    if parity.is_equal:
        return
    if isinstance(parity, IntegerParity):
        found = (
            f"gives the same top-1 for {parity.same_top1:.1%} of {parity.images} images and scores "
            f"up to {parity.max_score_difference:.3g} apart: expected {parity.least_same_top1:.0%} "
            f"and {parity.most_score_difference:g}"
        )
    else:
        found = (
            f"differs by up to {parity.max_difference:.3g} in a probability: expected at most "
            f"{parity.tolerance:g}"
        )
    raise ConversionError(f"{what} {found}; report this with the recipe")


def _largest(differences: NDArray[np.float64]) -> float:
    """Infinite where a score is not a number, so that no comparison passes by accident."""
    largest = float(differences.max())
    return largest if np.isfinite(largest) else float("inf")


def _check_shapes(expected: Scores, got: Scores) -> None:
    if expected.shape != got.shape or got.size == 0:
        raise ConversionError(
            f"scores of shape {got.shape} cannot be compared with {expected.shape}: expected the "
            "same images and classes, at least one"
        )
