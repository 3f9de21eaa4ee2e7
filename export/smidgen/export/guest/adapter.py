"""A tf_keras network as the train room's loop takes it: a Keras 3 network over the same variables.

A ``keras.Variable`` made of a ``tf.Variable`` holds that very variable, so what the loop assigns is
what the guest computes with, and the gradients reach it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from smidgen.export.guest.room import tf_keras
from smidgen.export.tensorflow_backend import keras
from smidgen.export.workshop import TuningWish, Workshop
from smidgen.train.fitting.tuning import TuningPlan, TuningSubject

_LONGEST_MEMORY = 0.9
"""Of a moving average of batch statistics: a short tuning is over before a longer one catches up
(as the train room has it)."""


class GuestNetwork(keras.Model):  # type: ignore[misc]
    """Normalised ``(N, H, W, 3) float32`` to logits, computed by a tf_keras network.

    ``statistics``: whether batch norms take batch statistics in training and learn them, or work
    with the stored ones. ``enter``: what is done with the input first. Only the variables of
    floating point are weights of it: counters and indices are remade in each step.
    """

    def __init__(
        self,
        guest: Any,
        statistics: Literal["train", "frozen"] = "train",
        enter: Callable[[Any], Any] = lambda x: x,
    ) -> None:
        super().__init__(name="guest")
        self._guest = guest
        self._learns = statistics == "train"
        self._enter = enter
        self.input_shape = guest.input_shape
        for norm in norms_of(guest):
            norm.momentum = min(norm.momentum, _LONGEST_MEMORY)
        trained = {id(variable) for variable in guest.trainable_variables}
        for variable in _unique(guest):
            self._track_variable(
                keras.Variable(
                    initializer=variable,
                    trainable=id(variable) in trained,
                    dtype=variable.dtype.name,
                    shape=variable.shape,
                    name=variable.name.split(":")[0].split("/")[-1],
                )
            )
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Logits ``(N, classes) float32``."""
        return self._guest(self._enter(inputs), training=training and self._learns)


def norms_of(guest: Any) -> list[Any]:
    """The batch norms of a tf_keras network, those inside of wrappers included."""
    inner = [getattr(layer, "layer", layer) for layer in guest.layers]
    return [x for x in inner if isinstance(x, tf_keras.layers.BatchNormalization)]


def same(network: Any, precision: str) -> Any:  # noqa: ARG001
    """The network itself: it has no cheaper copy to train."""
    return network


def tune(
    adapter: GuestNetwork,
    wish: TuningWish,
    workshop: Workshop,
    before_step: Callable[[int], None] = lambda _: None,
) -> float:
    """Train ``adapter`` in place with the float model as its teacher; validation top-1, 0..1.

    Raises:
        SourceError: there are no training images, or they changed.
        TrainError: the training diverged.
    """
    teacher = workshop.source.load()
    subject = TuningSubject(adapter, teacher, before_step, same)
    return workshop.tuner.tune(subject, wish)


def plan(epochs: int, learning_rate: float, keep: Literal["best", "last"]) -> TuningPlan:
    """A tenth of the loss by the labels, the rest by the float model's answers."""
    return TuningPlan(epochs, learning_rate, teacher_share=0.9, keep=keep)


def _unique(guest: Any) -> list[Any]:
    found = {id(variable): variable for variable in guest.variables}
    return [variable for variable in found.values() if variable.dtype.is_floating]
