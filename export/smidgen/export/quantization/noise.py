"""How much noise quantization makes behind each layer of an int8 TFLite file.

The signal-to-quantization-noise ratio (SQNR) of a tensor is ``10 log10(sum(x^2) / sum((x - q)^2))``
dB over all its values on some images, with ``x`` from the float file and ``q`` the dequantized
values of the int8 file at the same place. Noise of earlier layers is in ``q``: what is seen is what
reaches that place, not only what this layer adds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smidgen.export.formats.tflite_file import input_tensor, read_model
from smidgen.export.quantization.activations import Probe
from smidgen.export.quantization.pairing import Pair, PairedGraph, pair_up

INFINITE_DB = 200.0
"""Stands for the SQNR of a tensor without any noise."""


@dataclass(frozen=True)
class LayerNoise:
    """What is known of the output of one operator, over all images.

    Attributes:
        layer: name of the Keras layer.
        operator: TFLite's, ``CONV_2D`` and so on.
        sqnr_db: signal to noise, dB; -200..200.
        float_min: smallest value in the float file.
        float_max: largest value in the float file.
        scale: of the int8 tensor; 0 for a layer that stayed float.
        zero_point: of the int8 tensor.
        saturated: share of the float values outside the int8 tensor's range, 0..1.
    """

    layer: str
    operator: str
    sqnr_db: float
    float_min: float
    float_max: float
    scale: float
    zero_point: int
    saturated: float


def layer_signal_to_noise(
    float_file: bytes, integer_file: bytes, images: Iterable[NDArray[np.uint8]]
) -> tuple[LayerNoise, ...]:
    """A row for each operator of an int8 TFLite file, in the order in which they run.

    Args:
        float_file: the ``float_twin`` of the network (``quantization.twins``): float32 input.
        integer_file: the int8 file made from the same network, ``uint8`` input.
        images: ``(1, H, W, 3) uint8, 0..255`` each, as ``Calibration.pixels`` gives them.

    Raises:
        PairingError: the files are not of one network.
    """
    graph = pair_up(read_model(float_file), read_model(integer_file))
    return graph_noise(graph, images)


def graph_noise(graph: PairedGraph, images: Iterable[NDArray[np.uint8]]) -> tuple[LayerNoise, ...]:
    """As ``layer_signal_to_noise``, of a paired graph. Memory: the activations of one image."""
    sums = {pair.position: _Sums(graph, pair) for pair in graph.pairs}
    real = Probe(graph.float_model, [one.real for one in sums.values()])
    quantized = Probe(graph.integer_model, [one.integer for one in sums.values()])
    scale, zero_point = code_of(graph, int(graph.integer_model.subgraphs[0].inputs[0]))
    is_uint8 = input_tensor(graph.integer_model).type == _UINT8
    for pixels in images:
        decoded = (pixels.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        expected, got = real(decoded), quantized(pixels if is_uint8 else decoded)
        for one in sums.values():
            one.add(expected[one.real], got[one.integer])
    return tuple(one.row() for one in sums.values())


_UINT8 = 3


class _Sums:
    """Running sums of one operator's output."""

    def __init__(self, graph: PairedGraph, pair: Pair) -> None:
        self.pair = pair
        self.real = int(pair.float_operator.outputs[0])
        self.integer = int(pair.integer_operator.outputs[0])
        self.scale, self.zero_point = code_of(graph, self.integer)
        self.signal = self.noise = 0.0
        self.low, self.high = np.inf, -np.inf
        self.outside = self.count = 0

    def add(self, expected: NDArray[np.float32], got: NDArray[np.generic]) -> None:
        """One image's values."""
        if self.scale:
            low = (-128 - self.zero_point - 0.5) * self.scale
            high = (127 - self.zero_point + 0.5) * self.scale
            got = (got.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
            self.outside += int(np.count_nonzero((expected < low) | (expected > high)))
        error = np.subtract(expected, got, dtype=np.float32).ravel()
        self.signal += float(np.dot(expected.ravel(), expected.ravel()))
        self.noise += float(np.dot(error, error))
        self.low = min(self.low, float(expected.min()))
        self.high = max(self.high, float(expected.max()))
        self.count += expected.size

    def row(self) -> LayerNoise:
        """The finished row."""
        if self.noise > 0 and self.signal > 0:
            ratio = float(np.clip(10 * np.log10(self.signal / self.noise), -200, 200))
        else:
            ratio = INFINITE_DB if self.noise == 0 else -INFINITE_DB
        return LayerNoise(
            layer=self.pair.layer,
            operator=self.pair.kind,
            sqnr_db=ratio,
            float_min=self.low,
            float_max=self.high,
            scale=self.scale,
            zero_point=self.zero_point,
            saturated=self.outside / max(1, self.count),
        )


def code_of(graph: PairedGraph, index: int) -> tuple[float, int]:
    """Scale and zero point of an integer tensor; ``(0.0, 0)`` for a float one."""
    quantization = graph.integer_tensor(index).quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return 0.0, 0
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])
