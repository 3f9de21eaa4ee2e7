"""What a pass works with: the float network goes in, a changed one comes out.

A pass takes a functional Keras network (normalised ``(N, H, W, 3) float32`` to logits) and gives
another one of the same ends. It may train it further through the ``Tuner``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smidgen.export.calibration import Calibration
from smidgen.export.progress import Progress
from smidgen.export.source import FloatModel

if TYPE_CHECKING:  # imports Keras
    from smidgen.train.fitting.tuning import TuningPlan, TuningSubject


@dataclass(frozen=True)
class TuningWish:
    """How a pass wants a network tuned; ``name`` tells it from the other tunings of the export."""

    name: str
    plan: TuningPlan


class Tuner(Protocol):
    """Trains a changed network further on the training images, and measures it on validation."""

    def tune(self, subject: TuningSubject, wish: TuningWish) -> float:
        """Train in place; the validation top-1 of what is kept, a share in 0..1.

        Raises:
            SourceError: there are no training images, or they changed.
            TrainError: the training diverged.
        """

    def validation_top1(self, network: Any) -> float:
        """Top-1 on the validation images, a share in 0..1. Raises SourceError."""

    def steps_of(self, epochs: int) -> int:
        """How many steps a tuning of ``epochs`` has."""

    def batches(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """``count`` training images, spread over the classes, and their labels.

        ``(count, H, W, 3) uint8`` by the reference pre-processing, ``(count,) int64``.
        """


@dataclass(frozen=True)
class Workshop:
    """What every pass may use. ``work`` is a folder for what may be resumed and then goes."""

    source: FloatModel
    calibration: Calibration
    tuner: Tuner
    progress: Progress
    work: Path
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PassResult:
    """A changed network, and what is written of it into the manifest."""

    network: Any
    facts: dict[str, str]
