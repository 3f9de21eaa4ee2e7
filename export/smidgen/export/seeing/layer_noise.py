"""What quantization did behind each layer: noise, range, saturation, and how channels differ.

Signal to noise at a place holds the noise of all layers before it (``quantization.noise``).
``own_db`` takes that out again: it counts the noise beyond twice what came in, relative to the
signal, since layers amplify noise where they cancel signal. It is an estimate: what a layer adds
below that is not seen, and a layer that amplifies more is blamed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.formats.tflite_file import read_model
from smidgen.export.quantization.activations import Probe
from smidgen.export.quantization.noise import LayerNoise, code_of, graph_noise
from smidgen.export.quantization.pairing import PairedGraph, pair_up

EXACT_DB = 60.0
"""The most that is told apart: a millionth of the signal's power."""

_AMPLIFIED = 2.0
_SPREAD_IMAGES = 8
_LOWEST, _HIGHEST = -128, 127


@dataclass(frozen=True)
class LayerReport:
    """The output of one operator of an int8 TFLite file, over all images.

    sqnr_db: signal to quantization noise, -200..200; own_db: see above, at most 60.
    float_min, float_max: in the float file; int8_min, int8_max: what int8 can stand for there.
    saturated: share of the float values outside that range, 0..1.
    channel_spread: largest channel range divided by the median one; 1 where all are alike.
    is_float: the layer stayed float; then there is no int8 range.
    """

    layer: str
    operator: str
    sqnr_db: float
    own_db: float
    float_min: float
    float_max: float
    int8_min: float
    int8_max: float
    scale: float
    zero_point: int
    saturated: float
    channel_spread: float
    is_float: bool


@dataclass(frozen=True)
class NoiseReport:
    """All layers in the order in which they run.

    ``per_tensor_kernels``: layers with one scale for a kernel of several output channels.
    """

    layers: tuple[LayerReport, ...]
    per_tensor_kernels: tuple[str, ...]


def layer_reports(
    float_file: bytes, integer_file: bytes, images: Sequence[NDArray[np.uint8]]
) -> NoiseReport:
    """Compare an int8 TFLite file with its float twin.

    Args:
        float_file: ``quantization.twins.float_twin`` of the network.
        integer_file: the int8 file made from the same network.
        images: ``(1, H, W, 3) uint8, 0..255`` each; at least one.

    Raises:
        PairingError: the files are not of one network.
    """
    graph = pair_up(read_model(float_file), read_model(integer_file))
    rows = graph_noise(graph, images)
    before = _rows_before(graph)
    spreads = _channel_spreads(graph, images[:_SPREAD_IMAGES])
    layers = tuple(
        _report(row, [rows[i] for i in before[at]], spreads[at]) for at, row in enumerate(rows)
    )
    return NoiseReport(layers, _per_tensor_kernels(graph))


def _report(row: LayerNoise, inputs: Sequence[LayerNoise], spread: float) -> LayerReport:
    is_float = row.scale == 0
    return LayerReport(
        layer=row.layer,
        operator=row.operator,
        sqnr_db=round(row.sqnr_db, 3),
        own_db=round(_own_db(row.sqnr_db, [item.sqnr_db for item in inputs]), 3),
        float_min=row.float_min,
        float_max=row.float_max,
        int8_min=0.0 if is_float else (_LOWEST - row.zero_point) * row.scale,
        int8_max=0.0 if is_float else (_HIGHEST - row.zero_point) * row.scale,
        scale=row.scale,
        zero_point=row.zero_point,
        saturated=row.saturated,
        channel_spread=round(spread, 3),
        is_float=is_float,
    )


def _own_db(sqnr_db: float, inputs_db: Sequence[float]) -> float:
    """Of the noise relative to the signal, what twice the noisiest input's does not explain."""
    noise = min(1.0, 10 ** (-sqnr_db / 10))  # more cannot be lost than all of the signal
    explained = max((10 ** (-db / 10) for db in inputs_db), default=0.0)
    own = max(noise - _AMPLIFIED * explained, 10 ** (-EXACT_DB / 10))
    return float(-10 * np.log10(own))


def _rows_before(graph: PairedGraph) -> list[list[int]]:
    """For each pair the positions of those whose outputs it takes."""
    makers = {int(pair.float_operator.outputs[0]): pair.position for pair in graph.pairs}
    return [
        [makers[int(i)] for i in pair.float_operator.inputs if int(i) in makers]
        for pair in graph.pairs
    ]


def _channel_spreads(graph: PairedGraph, images: Sequence[NDArray[np.uint8]]) -> list[float]:
    """For each pair, from the float file's values; the channels are the last axis."""
    outputs = [int(pair.float_operator.outputs[0]) for pair in graph.pairs]
    low: dict[int, NDArray[Any]] = {}
    high: dict[int, NDArray[Any]] = {}
    probe = Probe(graph.float_model, outputs)
    scale, zero_point = code_of(graph, int(graph.integer_model.subgraphs[0].inputs[0]))
    for pixels in images:
        decoded = (pixels.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        for index, values in probe(decoded).items():
            flat = values.reshape(-1, values.shape[-1])
            low[index] = np.minimum(low.get(index, np.inf), flat.min(axis=0))
            high[index] = np.maximum(high.get(index, -np.inf), flat.max(axis=0))
    return [_spread(high[index] - low[index]) for index in outputs]


def _spread(ranges: NDArray[Any]) -> float:
    """Channels that never change are left out."""
    alive = ranges[ranges > 0]
    return float(alive.max() / np.median(alive)) if len(alive) else 1.0


def _per_tensor_kernels(graph: PairedGraph) -> tuple[str, ...]:
    found = []
    for pair in graph.pairs:
        if not pair.is_weighted:
            continue
        tensor = graph.integer_tensor(int(pair.integer_operator.inputs[1]))
        scales = tensor.quantization.scale if tensor.quantization else None
        if scales is not None and len(scales) == 1 < tensor.shape[pair.kernel_axis]:
            found.append(pair.layer)
    return tuple(found)
