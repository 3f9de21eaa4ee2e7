"""``predictions.csv``: the answer for each image of a split, for a spreadsheet or a script.

UTF-8 with a byte order mark (without it Excel takes the file for Latin-1), commas, one header line:

path          of the image, relative to the Run's folder of images where it lies in it
turn          quarter turns counter-clockwise that it was given (0 but for the orientation task)
label         its class
predicted     the class of the highest probability
probability   that probability, 0..1
correct       1 or 0
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smidgen.runtime.files import write_bytes
from smidgen.train.data import Dataset, Example
from smidgen.train.seeing.metrics import probabilities

HEADER = ("path", "turn", "label", "predicted", "probability", "correct")


@dataclass(frozen=True)
class Answers:
    """What was answered for N images.

    ``labels`` and ``predicted`` are ``(N,) int64`` indices into ``names``, ``probability`` is that
    of the predicted class, ``(N,) float64`` 0..1; ``paths`` are N file names and ``turns`` what was
    done to the images, ``(N,) int64`` quarter turns counter-clockwise.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    paths: tuple[str, ...]
    turns: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, examples: Sequence[Example], logits: np.ndarray) -> Answers:
        """The answers that ``(N, classes) float`` logits give for N examples."""
        shares = probabilities(logits)
        predicted = logits.argmax(axis=1)
        return cls(
            names=dataset.labels,
            labels=np.array([example.label for example in examples], np.int64),
            predicted=predicted,
            probability=shares[np.arange(len(shares)), predicted],
            paths=tuple(_relative(example.path, dataset.folder) for example in examples),
            turns=np.array([example.turn for example in examples], np.int64),
        )

    @property
    def wrong(self) -> np.ndarray:
        """Positions of the wrong answers, the most probable first: ``(M,) int64``."""
        positions = np.flatnonzero(self.predicted != self.labels)
        order = np.argsort(-self.probability[positions], kind="stable")
        result: np.ndarray = positions[order]
        return result


def write_predictions(answers: Answers, path: Path) -> None:
    """Write one line per image, in the order of the split. Raises OutputError."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(HEADER)
    columns = (answers.labels, answers.predicted, answers.probability, answers.turns)
    for name, label, predicted, probability, turn in zip(answers.paths, *columns, strict=True):
        writer.writerow(
            (name, int(turn), answers.names[label], answers.names[predicted],
             f"{probability:.6f}", int(label == predicted))
        )  # fmt: skip
    write_bytes(path, stream.getvalue().encode("utf-8-sig", "backslashreplace"))


def _relative(path: str, folder: str) -> str:
    place = Path(path)
    inside = place.is_relative_to(folder)
    return place.relative_to(folder).as_posix() if inside else place.as_posix()
