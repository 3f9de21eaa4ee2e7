"""Steps on JAX: jitted pure functions over the variables' values. Imported on that backend only.

One program runs on all devices of all processes (``spread.py``); XLA exchanges what it needs, so
that gradients, batch statistics and mixed images are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import keras
import numpy as np

from smidgen.train.fitting.objective import hits
from smidgen.train.fitting.optimizer import OptimizerState, decay_mask, flat, unflat
from smidgen.train.fitting.spread import Spread, here
from smidgen.train.fitting.steps import (
    Batch,
    Learning,
    StepResult,
    checked_state,
    trained_vector,
)


class _Values(NamedTuple):
    """What a step changes: values of the trained variables, of the others, the optimizer's."""

    trained: list[Any]
    other: list[Any]
    state: OptimizerState


class _Fixed(NamedTuple):
    """What a step only reads: where weight decay acts, the teachers' values."""

    decayed: Any
    teachers: list[list[Any]]


class JaxStepper:
    """See ``Stepper``. Values live here between steps; ``write_back`` puts them into Keras."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        trainee = learning.trainee
        self._trained_variables = trainee.trainable_variables
        self._other_variables = trainee.non_trainable_variables
        self._start = learning.optimizer.start(trained_vector(trainee))
        self._spread = Spread()
        on_all, everywhere = self._spread.on_all, self._spread.everywhere
        self._values = _Values(
            [on_all(variable.value) for variable in self._trained_variables],
            [on_all(variable.value) for variable in self._other_variables],
            OptimizerState(*map(on_all, self._start)),
        )
        teachers = [] if learning.teachers is None else learning.teachers.values()
        self._fixed = _Fixed(
            on_all(decay_mask(self._trained_variables)),
            [[on_all(value) for value in values] for values in teachers],
        )
        self._learn = jax.jit(
            self._step, static_argnums=(4,), donate_argnums=(0,), out_shardings=everywhere
        )
        self._apply = jax.jit(self._logits, out_shardings=everywhere)

    def step(self, batch: Batch, rate: float, is_update: bool) -> StepResult:
        """See ``Stepper``."""
        whole = Batch(*map(self._spread.in_parts, batch))
        self._values, loss, right = self._learn(
            self._values, self._fixed, whole, np.float32(rate), is_update
        )
        return StepResult(loss, right)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """See ``Stepper``."""
        return np.asarray(self._apply(self._values, self._spread.in_parts(pixels)))

    def write_back(self) -> None:
        """See ``Stepper``."""
        variables = (*self._trained_variables, *self._other_variables)
        for variable, value in zip(
            variables, (*self._values.trained, *self._values.other), strict=True
        ):
            variable.assign(jax.numpy.copy(here(value)))  # a step gives its inputs' memory away

    def optimizer_state(self) -> tuple[np.ndarray, ...]:
        """See ``Stepper``."""
        return tuple(np.asarray(value) for value in self._values.state)

    def restore_optimizer(self, arrays: Sequence[np.ndarray]) -> None:
        """See ``Stepper``."""
        state = OptimizerState(*map(self._spread.on_all, checked_state(arrays, self._start)))
        self._values = self._values._replace(state=state)

    def trained(self) -> np.ndarray:
        """See ``Stepper``."""
        return np.asarray(flat([here(value) for value in self._values.trained]))

    def set_trained(self, vector: np.ndarray) -> None:
        """See ``Stepper``."""
        trained = unflat(jax.numpy.asarray(vector), self._trained_variables)
        self._values = self._values._replace(trained=[*map(self._spread.on_all, trained)])

    def _step(
        self, values: _Values, fixed: _Fixed, batch: Batch, rate: Any, is_update: bool
    ) -> tuple[_Values, Any, Any]:
        learning = self._learning

        def loss_of(trained: Any) -> Any:
            outputs, other = learning.trainee.stateless_call(
                trained, values.other, (batch.pixels, batch.targets), training=True
            )
            answers = None
            if learning.teachers is not None:
                answers = learning.teachers.stateless(
                    fixed.teachers, jax.lax.stop_gradient(outputs.pixels)
                )
            loss = learning.loss(outputs, batch.weights, answers)
            return loss, (other, hits(outputs.logits, outputs.targets))

        learn = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (other, right)), gradients = learn(values.trained)
        if not is_update:
            state = learning.optimizer.gather(flat(gradients), values.state)
            return _Values(values.trained, other, state), loss, right
        parameters, state = learning.optimizer.update(
            flat(values.trained), flat(gradients), values.state, rate, fixed.decayed
        )
        trained = unflat(parameters, self._trained_variables)
        return _Values(trained, other, state), loss, right

    def _logits(self, values: _Values, pixels: Any) -> Any:
        targets = keras.ops.zeros((pixels.shape[0], 2))
        outputs, _ = self._learning.trainee.stateless_call(
            values.trained, values.other, (pixels, targets), training=False
        )
        return outputs.logits
