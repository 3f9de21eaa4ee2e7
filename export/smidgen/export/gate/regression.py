"""Is this file as good as that one? The gate between a candidate and a stored baseline.

A team runs it on every retraining: both files answer the same held-out images, each in its own
engine and with its own pre-processing, in a child process; the Verdict is the export gate's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import GateError
from smidgen.export.gate.held_out import HeldOut
from smidgen.export.gate.judge import Answers, Judge, reference_scores
from smidgen.export.gate.verdicts import JudgedImages, Limits, judge_scores
from smidgen.export.pictures import Picture
from smidgen.export.progress import Progress, stage
from smidgen.export.source import FloatModel
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.decisions import shown_scores
from smidgen.runtime.manifest import Verdict

Advance = Callable[[int], None]


class Model(Protocol):
    """Something that answers pictures, with a name for the report."""

    @property
    def name(self) -> str:
        """The file or folder, as the user named it."""
        ...

    @property
    def kind(self) -> str:
        """What it is, as ``int8 .tflite``."""
        ...

    @property
    def sha256(self) -> str:
        """Of the file, or of the weights."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of its scores."""
        ...

    def answer(self, pictures: Sequence[Picture], advance: Advance) -> Answers:
        """Probabilities ``(N, classes) float32``. Raises ExportError."""
        ...

    def confidence(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """How sure it says that it is, of each row of ``answer``: ``(N,) float32``, 0..1."""
        ...


@dataclass(frozen=True)
class BundleModel:
    """A Bundle that answers in its own engine, in a child process."""

    bundle: Bundle
    judge: Judge = field(default_factory=Judge)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> BundleModel:
        """Raises BundleError."""
        return cls(Bundle.open(path))

    @property
    def name(self) -> str:
        return str(self.bundle.path)

    @property
    def kind(self) -> str:
        return f"{self.bundle.manifest.scheme} .{self.bundle.manifest.model_format}"

    @property
    def sha256(self) -> str:
        return self.bundle.file_sha256

    @property
    def labels(self) -> tuple[str, ...]:
        return self.bundle.manifest.labels

    def answer(self, pictures: Sequence[Picture], advance: Advance) -> Answers:
        return self.judge.answer_pictures(Path(self.bundle.path), pictures, advance)

    def confidence(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        top: NDArray[np.float32] = shown_scores(scores, self.bundle.manifest).max(axis=1)
        return top


@dataclass(frozen=True)
class RunModel:
    """The float network of a Run, which answers in Keras, in this process."""

    folder: str
    source: FloatModel

    @property
    def name(self) -> str:
        return self.folder

    @property
    def kind(self) -> str:
        return "float network"

    @property
    def sha256(self) -> str:
        return self.source.weights_sha256

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.labels

    def answer(self, pictures: Sequence[Picture], advance: Advance) -> Answers:
        model, size = self.source.load(), self.source.preprocessing
        scores = reference_scores(model, self.source.normalization, size, pictures, advance)
        from smidgen.export.tensorflow_backend import keras

        return Answers(scores, f"keras {keras.__version__}")

    def confidence(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        top: NDArray[np.float32] = scores.max(axis=1)
        return top


@dataclass(frozen=True)
class FakeModel:
    """For tests: answers ``scores`` whatever the pictures show."""

    name: str
    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    kind: str = "fake"
    sha256: str = "0" * 64

    def answer(self, pictures: Sequence[Picture], advance: Advance) -> Answers:
        advance(len(pictures))
        return Answers(self.scores, "fake 1")

    def confidence(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        top: NDArray[np.float32] = scores.max(axis=1)
        return top


@dataclass(frozen=True)
class Side:
    """One of the two models in a report; only ``name`` is known of what could not be opened."""

    name: str
    kind: str = "not read"
    sha256: str = ""
    engine: str = ""


@dataclass(frozen=True)
class Comparison:
    """What the gate found, or why it could not run: ``verdict`` is None and ``error`` a line."""

    candidate: Side
    baseline: Side
    origin: str
    limits: Limits
    verdict: Verdict | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the candidate may take the baseline's place."""
        return self.verdict is not None and self.verdict.verdict == "pass"


def compare(
    candidate: Model, baseline: Model, held_out: HeldOut, limits: Limits, progress: Progress
) -> Comparison:
    """Both models on the same pictures; the Verdict's reference is the baseline.

    Answers and probabilities are the models' own. Mean confidence and calibration errors are of
    what each says on a device, after its manifest's temperature.

    Raises:
        GateError: their labels differ, or no pictures.
        CandidateFailed: one of them crashed, stalled or refused in its own engine.
        SourceError: a picture is gone or changed, or the Run's network does not load.
        OutputError: no space for the answers.
    """
    check_labels(candidate, baseline)
    pictures, seconds = held_out.pictures, dict[str, float]()
    answers = []
    for model in (baseline, candidate):
        with stage(progress, f"ask {Path(model.name).name}", seconds, len(pictures)):
            answers.append(model.answer(pictures, progress.advance))
    before, after = answers
    labels = [-1 if picture.label is None else picture.label for picture in pictures]
    images = JudgedImages(
        truth=np.asarray(labels, np.int64),
        labels=candidate.labels,
        contents=[picture.sha256 for picture in pictures],
        confidences=(baseline.confidence(before.scores), candidate.confidence(after.scores)),
    )
    verdict, _ = judge_scores(
        before.scores, after.scores, images=images, limits=limits, engine=after.engine
    )
    return Comparison(
        side(candidate, after.engine),
        side(baseline, before.engine),
        held_out.origin,
        limits,
        verdict,
        notes=held_out.notes,
        seconds=seconds,
    )


def side(model: Model, engine: str = "") -> Side:
    """The model as a report names it; ``engine``: what answered."""
    return Side(model.name, model.kind, model.sha256, engine)


def check_labels(candidate: Model, baseline: Model) -> None:
    """Raises GateError where the two models' scores do not mean the same classes."""
    ours, theirs = candidate.labels, baseline.labels
    if ours == theirs:
        return
    lost = [label for label in theirs if label not in ours]
    new = [label for label in ours if label not in theirs]
    if lost or new:
        parts = [f"lacks {label!r}" for label in lost[:1]]
        parts += [f"has {label!r} more" for label in new[:1]]
        why = f"{' and '.join(parts)} ({len(theirs)} labels before, {len(ours)} now)"
    else:
        index = next(i for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1])
        why = f"has them in another order (number {index + 1} is {ours[index]!r}, was "
        why += f"{theirs[index]!r})"
    raise GateError(
        f"{candidate.name} has other labels than {baseline.name}: it {why}; compare files of the "
        "same classes, or begin with a new baseline"
    )
