"""AdamW on one flat vector of parameters.

All trained parameters are one ``(P,) float32`` vector, and so are the gradients and the two
moments. An update is then a dozen operations whatever the number of layers, where an optimizer that
goes from variable to variable makes thousands: a third of the time of a small network's step on a
CPU, and most of the time to trace it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
_NOT_DECAYED = ("bias", "gamma", "beta")


class OptimizerState(NamedTuple):
    """What an optimizer remembers. Shapes: scalars ``()``, vectors ``(P,)``; all float32.

    ``average`` is the running average of the parameters (EMA) and ``gathered`` the sum of gradients
    since the last update; each is empty, ``(0,)``, where the recipe does not ask for it.
    """

    updates: Any
    first: Any
    second: Any
    average: Any
    gathered: Any


class AdamW(NamedTuple):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); biases and norms not decayed.

    ``ema`` is the share of the average kept at each update (Polyak and Juditsky 1992), 0: none;
    early in training ``(1 + updates) / (10 + updates)``, if smaller. ``accumulate`` gradients make
    one update.
    """

    weight_decay: float
    ema: float
    accumulate: int

    def start(self, parameters: np.ndarray) -> OptimizerState:
        """The state before the first update of ``(P,) float32`` parameters."""
        zeros = np.zeros_like(parameters)
        none = np.zeros(0, np.float32)
        return OptimizerState(
            updates=np.zeros((), np.float32),
            first=zeros,
            second=zeros.copy(),
            average=parameters.copy() if self.ema else none,
            gathered=zeros.copy() if self.accumulate > 1 else none,
        )

    def gather(self, gradients: Any, state: OptimizerState) -> OptimizerState:
        """The state after a step whose gradients wait for the next update."""
        return state._replace(gathered=state.gathered + gradients)

    def update(
        self, parameters: Any, gradients: Any, state: OptimizerState, rate: Any, decayed: Any
    ) -> tuple[Any, OptimizerState]:
        """New parameters ``(P,)`` and state; ``decayed`` is ``(P,)``, 1 where weight decay acts."""
        ops = keras.ops
        if self.accumulate > 1:
            gradients = (state.gathered + gradients) / self.accumulate
            state = state._replace(gathered=ops.zeros_like(state.gathered))
        updates = state.updates + 1.0
        first = _BETA_1 * state.first + (1.0 - _BETA_1) * gradients
        second = _BETA_2 * state.second + (1.0 - _BETA_2) * ops.square(gradients)
        corrected = ops.sqrt(1.0 - ops.exp(updates * math.log(_BETA_2)))
        corrected = rate * corrected / (1.0 - ops.exp(updates * math.log(_BETA_1)))
        parameters = parameters * (1.0 - rate * self.weight_decay * decayed)
        parameters = parameters - corrected * first / (ops.sqrt(second) + _EPSILON)
        average = state.average
        if self.ema:
            kept = ops.minimum(self.ema, (1.0 + updates) / (10.0 + updates))
            average = kept * average + (1.0 - kept) * parameters
        return parameters, OptimizerState(updates, first, second, average, state.gathered)


def decay_mask(variables: Sequence[Any]) -> np.ndarray:
    """``(P,) float32``: 1 for the numbers of kernels, 0 for those of biases and norms."""
    parts = [
        np.full(math.prod(variable.shape), variable.name not in _NOT_DECAYED, np.float32)
        for variable in variables
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def flat(values: Sequence[Any]) -> Any:
    """Tensors of any shape as one ``(P,) float32`` tensor."""
    ops = keras.ops
    return ops.concatenate([ops.reshape(ops.cast(value, "float32"), (-1,)) for value in values])


def unflat(vector: Any, variables: Sequence[Any]) -> list[Any]:
    """The inverse of ``flat``: tensors in the shapes of ``variables``."""
    ops = keras.ops
    ends = np.cumsum([math.prod(variable.shape) for variable in variables])[:-1]
    parts = ops.split(vector, [int(end) for end in ends])
    return [ops.reshape(p, v.shape) for p, v in zip(parts, variables, strict=True)]
