"""The step of training for the backend that Keras runs on."""

from __future__ import annotations

import keras

from smidgen.train.fitting.steps import Learning, Stepper


def stepper(learning: Learning) -> Stepper:
    """The stepper of the backend that Keras runs on."""
    if keras.config.backend() == "tensorflow":
        from smidgen.train.fitting.tensorflow_steps import TensorFlowStepper

        return TensorFlowStepper(learning)
    from smidgen.train.fitting.jax_steps import JaxStepper

    return JaxStepper(learning)
