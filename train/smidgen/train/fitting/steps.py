"""One step of training: the Protocol, and what its backends share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from smidgen.train.fitting.objective import Answers, Objective
from smidgen.train.fitting.optimizer import AdamW, OptimizerState
from smidgen.train.fitting.trainee import Outputs, Trainee


class Batch(NamedTuple):
    """What a step learns from, as far as this process reads it.

    Pixels ``(N, H, W, 3) uint8`` 0..255 (or features of a frozen part, ``(N, ...) float16``),
    targets ``(N, C) float32``, weights ``(N,) float32``.
    """

    pixels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class StepResult(NamedTuple):
    """Scalars that may still be computed when they are returned; ``float()`` waits for them."""

    loss: Any
    hits: Any


class Learning(NamedTuple):
    """What a step does with a trainee. ``teachers`` is None or a ``Teachers``."""

    trainee: Trainee
    optimizer: AdamW
    objective: Objective
    teachers: Any = None

    def loss(self, outputs: Outputs, weights: Any, answers: Answers | None) -> Any:
        """Of a batch, a scalar. ``weights``: ``(N,) float32``; ``answers``: the teachers'."""
        said = None if answers is None else answers.probabilities
        loss = self.objective.loss(outputs.logits, outputs.targets, weights, said)
        if answers is not None and answers.hints:
            loss = loss + self.objective.hint_loss(outputs.hints, answers.hints)
        return loss


class Stepper(Protocol):
    """Trains and applies a ``Trainee``; holds its variables and the optimizer's while it lives."""

    def step(self, batch: Batch, rate: float, is_update: bool) -> StepResult:
        """Learn from a batch; ``is_update`` False only gathers its gradients."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Logits ``(N, C) float32`` outside training, of the whole batch in every process."""

    def write_back(self) -> None:
        """Let the trainee's Keras variables hold what was learnt; a no-op where they always do."""

    def optimizer_state(self) -> tuple[np.ndarray, ...]:
        """The optimizer's arrays, in the order of ``OptimizerState``."""

    def restore_optimizer(self, arrays: Sequence[np.ndarray]) -> None:
        """Take up what ``optimizer_state`` gave. Raises ValueError if the shapes differ."""

    def trained(self) -> np.ndarray:
        """The trained variables as one ``(P,) float32`` vector."""

    def set_trained(self, vector: np.ndarray) -> None:
        """Let the trained variables be this ``(P,) float32`` vector."""


def trained_vector(trainee: Trainee) -> np.ndarray:
    """The trained variables as one ``(P,) float32`` vector."""
    arrays = [
        np.asarray(keras.ops.convert_to_numpy(v), np.float32).reshape(-1)
        for v in trainee.trainable_variables
    ]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


def checked_state(arrays: Sequence[np.ndarray], expected: OptimizerState) -> OptimizerState:
    """``arrays`` as a state. Raises ValueError if number or shapes differ from ``expected``'s."""
    shapes = [array.shape for array in arrays]
    wanted = [tuple(value.shape) for value in expected]
    if shapes != wanted:
        raise ValueError(f"the optimizer's arrays have the shapes {shapes}, expected {wanted}")
    return OptimizerState(*arrays)
