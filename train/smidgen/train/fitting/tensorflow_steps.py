"""Steps on TensorFlow: one traced function for learning and one for predicting, without XLA.

XLA makes this kind of network ten times slower on a CPU, and takes half a minute to compile it.
TensorFlow is imported here and in ``fused_batch_norm`` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from smidgen.train.fitting.objective import hits
from smidgen.train.fitting.optimizer import OptimizerState, decay_mask, flat, unflat
from smidgen.train.fitting.steps import (
    Batch,
    Learning,
    StepResult,
    checked_state,
    trained_vector,
)


class TensorFlowStepper:
    """See ``Stepper``. The Keras variables always hold what was learnt."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._trained = learning.trainee.trainable_variables
        start = learning.optimizer.start(trained_vector(learning.trainee))
        self._state = OptimizerState(
            *(keras.Variable(array, trainable=False, name="optimizer") for array in start)
        )
        self._decayed = tf.constant(decay_mask(self._trained))
        self._learn = tf.function(self._step, autograph=False, jit_compile=False)
        self._apply = tf.function(self._logits, autograph=False, jit_compile=False)

    def step(self, batch: Batch, rate: float, is_update: bool) -> StepResult:
        """See ``Stepper``."""
        tensors = [tf.constant(array) for array in batch]
        loss, right = self._learn(*tensors, tf.constant(rate, tf.float32), is_update)
        return StepResult(loss, right)

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """See ``Stepper``."""
        logits: np.ndarray = self._apply(tf.constant(pixels)).numpy()
        return logits

    def write_back(self) -> None:
        """Nothing to do."""

    def optimizer_state(self) -> tuple[np.ndarray, ...]:
        """See ``Stepper``."""
        return tuple(np.asarray(variable.numpy()) for variable in self._state)

    def restore_optimizer(self, arrays: Sequence[np.ndarray]) -> None:
        """See ``Stepper``."""
        for variable, array in zip(self._state, checked_state(arrays, self._state), strict=True):
            variable.assign(array)

    def trained(self) -> np.ndarray:
        """See ``Stepper``."""
        return trained_vector(self._learning.trainee)

    def set_trained(self, vector: np.ndarray) -> None:
        """See ``Stepper``."""
        for variable, array in zip(self._trained, unflat(vector, self._trained), strict=True):
            variable.assign(array)

    def _step(self, pixels: Any, targets: Any, weights: Any, rate: Any, is_update: bool) -> Any:
        learning = self._learning
        values = [variable.value for variable in self._trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            outputs = learning.trainee((pixels, targets), training=True)
            answers = None if learning.teachers is None else learning.teachers(outputs.pixels)
            loss = learning.loss(outputs, weights, answers)
        unconnected = tf.UnconnectedGradients.ZERO
        gradients = flat(tape.gradient(loss, values, unconnected_gradients=unconnected))
        state = OptimizerState(*(variable.value for variable in self._state))
        if is_update:
            parameters, new = learning.optimizer.update(
                flat(values), gradients, state, rate, self._decayed
            )
            for variable, part in zip(self._trained, unflat(parameters, values), strict=True):
                variable.assign(part)
        else:
            new = learning.optimizer.gather(gradients, state)
        for variable, value in zip(self._state, new, strict=True):
            if value is not variable.value:
                variable.assign(value)
        return loss, hits(outputs.logits, outputs.targets)

    def _logits(self, pixels: Any) -> Any:
        targets = tf.zeros((pixels.shape[0], 2))
        return self._learning.trainee((pixels, targets), training=False).logits
