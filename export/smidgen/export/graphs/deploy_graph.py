"""The graphs that are converted: pixels or normalised floats in, probabilities out.

A trained model takes normalised floats and gives logits. A Bundle takes ``uint8`` RGB pixels and
gives probabilities. For int8 files the pixels should enter without arithmetic: where
``(pixel - mean) / std`` is one affine code for all channels and the mean a whole number, the pixel
IS the quantized value of the normalised float, with scale ``1 / std`` and zero point ``mean``.
Where it is not (another mean per channel, or a mean such as 127.5), normalisation becomes part of
the graph and the pixel is the quantized value of itself, with scale 1 and zero point 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.source import ChannelNormalization
from smidgen.export.tensorflow_backend import keras

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"


@dataclass(frozen=True)
class PixelCode:
    """How a ``uint8`` pixel encodes the real number that a graph takes.

    ``real = (pixel - zero_point) * scale``.
    """

    scale: float
    zero_point: int

    def decode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The real numbers for ``pixels`` of any shape, ``float32``."""
        return (pixels.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)

    @property
    def range(self) -> tuple[float, float]:
        """The real numbers for pixel 0 and pixel 255."""
        return (0 - self.zero_point) * self.scale, (255 - self.zero_point) * self.scale


def pixel_code(normalization: ChannelNormalization) -> PixelCode:
    """The code under which ``uint8`` pixels enter the graph of ``quantizable_graph``."""
    if _is_one_code(normalization):
        return PixelCode(scale=1 / normalization.std[0], zero_point=int(normalization.mean[0]))
    return PixelCode(scale=1.0, zero_point=0)


def quantizable_graph(model: Any, normalization: ChannelNormalization, *, batch: int | None) -> Any:
    """Keras model: decoded pixels ``(batch, H, W, 3) float32`` to probabilities.

    Args:
        model: normalised ``(N, H, W, 3) float32`` to logits ``(N, classes) float32``.
        batch: fixed batch size, or None for any.
    """
    image = keras.Input(batch_shape=(batch, *model.input.shape[1:]), name=INPUT_NAME)
    normalised = image
    if not _is_one_code(normalization):
        normalised = _scale_and_shift(image, normalization)
    return _with_softmax(image, model(normalised))


def pixel_graph(model: Any, normalization: ChannelNormalization) -> Any:
    """Keras model: ``(1, H, W, 3) uint8, 0..255`` to probabilities ``(1, classes) float32``."""
    image = keras.Input(batch_shape=(1, *model.input.shape[1:]), dtype="uint8", name=INPUT_NAME)
    pixels = keras.ops.cast(image, "float32")
    return _with_softmax(image, model(_normalise(pixels, normalization)))


def _with_softmax(image: Any, logits: Any) -> Any:
    # Named, so that tensors have the same names whatever was built before in this process.
    return keras.Model(image, keras.layers.Softmax(name=OUTPUT_NAME)(logits), name="smidgen")


def _normalise(pixels: Any, normalization: ChannelNormalization) -> Any:
    mean, std = normalization.mean, normalization.std
    if len(set(mean)) == len(set(std)) == 1:
        return (pixels - np.float32(mean[0])) * np.float32(1 / std[0])
    return _scale_and_shift(pixels, normalization)


def _scale_and_shift(pixels: Any, normalization: ChannelNormalization) -> Any:
    """The same without a subtraction: Mul and Add have int8 forms everywhere, Sub has not."""
    mean = np.asarray(normalization.mean, np.float32)
    scale = np.asarray([1 / std for std in normalization.std], np.float32)
    return pixels * scale + (-mean * scale)


def _is_one_code(normalization: ChannelNormalization) -> bool:
    mean, std = normalization.mean, normalization.std
    is_same = len(set(mean)) == len(set(std)) == 1
    return is_same and float(mean[0]).is_integer() and 0 <= mean[0] <= 255
