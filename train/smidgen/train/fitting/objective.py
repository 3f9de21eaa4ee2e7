"""The loss of a step: cross entropy with the labels and the teachers' answers; their hints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras


class Answers(NamedTuple):
    """What teachers say: probabilities ``(N, C) float32`` at the temperature, outputs of layers."""

    probabilities: Any
    hints: list[Any] = []  # noqa: RUF012 - never changed


class Objective(NamedTuple):
    """What a step minimises, per image ``weight * ((1 - share) * hard + share * soft)``.

    ``hard`` is the cross entropy with the smoothed label (Szegedy et al. 2016). ``soft`` is the
    cross entropy with the teachers' mean answer, both softened by ``temperature``, times
    temperature squared (Hinton, Vinyals and Dean 2015). Where layers are taught, ``hint_weight``
    times what ``hint_loss`` says is added.
    """

    label_smoothing: float = 0.0
    temperature: float = 1.0
    teacher_share: float = 0.0
    hint_weight: float = 0.0

    def loss(self, logits: Any, targets: Any, weights: Any, answers: Any = None) -> Any:
        """The mean over the batch, a scalar.

        Args:
            logits: ``(N, C) float32``.
            targets: ``(N, C) float32``, one-hot or mixed; each row adds up to 1.
            weights: ``(N,) float32``, 1 on average over the data set.
            answers: ``(N, C) float32``, probabilities of the teachers at ``temperature``; None
                without teachers.
        """
        ops = keras.ops
        smooth = targets * (1.0 - self.label_smoothing) + self.label_smoothing / targets.shape[-1]
        per_image = -ops.sum(smooth * ops.log_softmax(logits, axis=-1), axis=-1)
        if answers is not None:
            log_soft = ops.log_softmax(logits / self.temperature, axis=-1)
            soft = -ops.sum(answers * log_soft, axis=-1) * self.temperature**2
            per_image = (1.0 - self.teacher_share) * per_image + self.teacher_share * soft
        return ops.mean(per_image * weights)

    def hint_loss(self, hints: Sequence[Any], taught: Sequence[Any]) -> Any:
        """How far the outputs of layers are from a teacher's (Romero et al. 2015, arXiv:1412.6550).

        The mean over the layers of the squared difference, as a share of the variance of the
        teacher's outputs within their channels, times ``hint_weight``; a scalar.

        Args:
            hints: ``(N, ..., C) float32`` of each layer.
            taught: of the same shapes.
        """
        ops = keras.ops
        shares = []
        for one, two in zip(hints, taught, strict=True):
            axes = list(range(len(two.shape) - 1))
            variance = ops.mean(ops.var(two, axis=axes))
            shares.append(ops.mean(ops.square(one - two)) / (variance + keras.config.epsilon()))
        return self.hint_weight * sum(shares[1:], shares[0]) / len(shares)


def hits(logits: Any, targets: Any) -> Any:
    """How many of ``(N, C)`` logits are largest where ``(N, C)`` targets are; a scalar."""
    ops = keras.ops
    same = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1))
    return ops.sum(ops.cast(same, "float32"))
