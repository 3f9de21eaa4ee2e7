"""What is trained: augmentation, normalisation and a copy of the network made for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from smidgen.train.models.backbones import Normalization

_EXACT_LAYERS = ("logits",)
"""Layers that compute in float32 whatever the recipe's precision: the loss needs the digits."""


_LONGEST_MEMORY = 0.9
"""Of a moving average of batch statistics: fine-tuning is over before a longer one catches up."""


class Outputs(NamedTuple):
    """What a ``Trainee`` gives.

    ``logits``: ``(N, C) float32``. ``targets``: ``(N, C)``, as mixed as the pixels are. ``pixels``:
    ``(N, H, W, 3) float32`` 0..255, as the network saw them before they were normalised. ``hints``:
    what the named layers gave.
    """

    logits: Any
    targets: Any
    pixels: Any
    hints: list[Any]


class Trainee(keras.Model):  # type: ignore[misc]
    """From pixels and targets to logits and the targets that belong to them.

    Call it with ``(pixels, targets)``: pixels ``(N, H, W, 3)`` of any number type, 0..255, targets
    ``(N, C) float32``. It returns ``Outputs``. Outside training nothing is augmented. With
    ``normalization`` None the input is what the frozen part of a network made of images, and goes
    to the network as it is. ``hints`` are names of layers of the functional network.
    """

    def __init__(
        self,
        network: Any,
        normalization: Normalization | None,
        augmentation: Sequence[Any] = (),
        mix: Any = None,
        hints: Sequence[str] = (),
    ) -> None:
        super().__init__(name="trainee")
        self.network = network
        self.augmentation = list(augmentation)
        self.mix = mix
        self._normalization = normalization
        self._watched = _watched(network, hints) if hints else None
        self.built = True  # its layers are; stateless calls ask

    def call(self, inputs: Any, training: bool = False) -> Any:
        """See the class."""
        pixels, targets = inputs
        pixels = keras.ops.cast(pixels, "float32")
        if training:
            for layer in self.augmentation:
                pixels = layer(pixels, training=True)
            if self.mix is not None:
                pixels, targets = self.mix((pixels, targets), training=True)
        x = pixels
        if self._normalization is not None:
            x = normalised(pixels, self._normalization)
        if self._watched is None:
            logits, hints = self.network(x, training=training), []
        else:
            logits, *hints = self._watched(x, training=training)
        return Outputs(two_at_least(keras.ops.cast(logits, "float32")), targets, pixels, hints)


def _watched(network: Any, hints: Sequence[str]) -> Any:
    """``network`` with the outputs of layers beside its own."""
    outputs = [network.get_layer(name).output for name in hints]
    return keras.Model(network.input, [network.output, *outputs])


def normalised(pixels: Any, normalization: Normalization) -> Any:
    """``(N, H, W, 3) float32`` pixels 0..255 as a network takes them."""
    mean, std = (
        keras.ops.convert_to_tensor(three, "float32")
        for three in (normalization.mean, normalization.std)
    )
    return (pixels - mean) / std


def two_at_least(logits: Any) -> Any:
    """``(N, C)`` as they are; one sigmoid unit ``(N, 1)`` as ``(N, 2)``: softmax([0, z]) of it is
    the sigmoid, and its cross entropy the binary one."""
    if logits.shape[-1] != 1:
        return logits
    return keras.ops.concatenate([keras.ops.zeros_like(logits), logits], axis=-1)


def training_copy(network: Any, precision: str) -> Any:
    """A copy of a functional network that computes the same, faster; with weights of its own.

    On TensorFlow each batch normalisation is one fused operation. ``bfloat16`` lets every layer but
    ``logits`` compute in bfloat16 with float32 weights; on a CPU the convolutions alone, without
    the depthwise ones. ``network.set_weights(copy.get_weights())`` takes the weights back: both
    have the same variables in the same order.
    """
    batch_norm = _batch_norm_class()
    is_short = _has_bfloat16() if precision == "bfloat16" else _never

    def twin(layer: Any) -> Any:
        config = layer.get_config()
        if is_short(layer):
            config["dtype"] = "mixed_bfloat16"
        is_norm = type(layer) is keras.layers.BatchNormalization
        if is_norm:
            config["momentum"] = min(config["momentum"], _LONGEST_MEMORY)
        return (batch_norm if is_norm else type(layer)).from_config(config)

    copy = keras.models.clone_model(network, clone_function=twin)
    copy.set_weights(network.get_weights())
    return copy


def _has_bfloat16() -> Callable[[Any], bool]:
    """Which layers gain from bfloat16.

    On a CPU with instructions for it, convolutions take half the time; but TensorFlow's gradients
    of depthwise convolutions take eight times as long in it, and those of ReLU6 four times.
    """
    if keras.config.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return lambda layer: type(layer) is keras.layers.Conv2D
    return lambda layer: layer.name not in _EXACT_LAYERS


def _never(layer: Any) -> bool:  # noqa: ARG001
    return False


def _batch_norm_class() -> Any:
    if keras.config.backend() != "tensorflow":
        return keras.layers.BatchNormalization
    from smidgen.train.fitting.fused_batch_norm import FusedBatchNormalization

    return FusedBatchNormalization
