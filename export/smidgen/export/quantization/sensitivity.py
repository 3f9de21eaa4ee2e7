"""Which layers cost an int8 file its accuracy, and which few should stay in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import PairingError
from smidgen.export.formats.tflite_file import read_model
from smidgen.export.quantization.activations import Probe
from smidgen.export.quantization.mixed_precision import with_float_layers
from smidgen.export.quantization.numbers import code_of
from smidgen.export.quantization.pairing import Pair, PairedGraph, pair_up

_IMAGES = 24


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer costs.

    Attributes:
        layer: name of the Keras layer.
        operator: TFLite's.
        logit_error: mean over images and classes of ``|float logit - int8 logit|`` of the file
            with this layer alone in float32.
        restored: by how much that is less than with all layers in int8.
        weights: how many weights the layer has; in float each takes 3 bytes more.
    """

    layer: str
    operator: str
    logit_error: float
    restored: float
    weights: int


def sensitivity(
    float_file: bytes,
    integer_file: bytes,
    images: Iterable[NDArray[np.uint8]],
    advance: Callable[[int], None],
) -> tuple[LayerSensitivity, ...]:
    """A row for each layer with a kernel, the one that costs the most first.

    Args:
        float_file: the ``float_twin`` that the int8 file was made with.
        integer_file: the int8 file.
        images: ``(1, H, W, 3) uint8, 0..255`` each; 16 to 32 are enough. All are held in memory.
        advance: called with 1 for each layer.

    Raises:
        PairingError: the files are not of one network.
    """
    graph = pair_up(read_model(float_file), read_model(integer_file))
    return graph_sensitivity(graph, images, advance)


def graph_sensitivity(
    graph: PairedGraph, images: Iterable[NDArray[np.uint8]], advance: Callable[[int], None]
) -> tuple[LayerSensitivity, ...]:
    """As ``sensitivity``, of a paired graph."""
    pixels = list(images)
    expected = float_logits(graph, pixels)
    whole = logit_error(graph, graph.integer_model, pixels, expected)
    rows = []
    for pair in graph.pairs:
        if pair.is_weighted:
            twin = with_float_layers(graph, {pair.position})
            error = logit_error(graph, twin, pixels, expected)
            size = int(graph.kernel(pair).size)
            rows.append(LayerSensitivity(pair.layer, pair.kind, error, whole - error, size))
            advance(1)
    return tuple(sorted(rows, key=lambda row: (-row.restored, row.layer)))


def worst_layers(rows: Sequence[LayerSensitivity], count: int) -> tuple[str, ...]:
    """The names of up to ``count`` layers that restore the most, none that restores nothing."""
    return tuple(row.layer for row in rows[:count] if row.restored > 0)


def float_logits(graph: PairedGraph, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The float graph's logits, ``(images, classes)``; ``(1, H, W, 3) uint8`` images."""
    code = code_of(graph, int(graph.integer_model.subgraphs[0].inputs[0]))
    index = int(_last(graph).float_operator.inputs[0])
    probe = Probe(graph.float_model, [index])
    return np.concatenate([probe(code.dequantized(pixels))[index] for pixels in images])


def logit_error(
    graph: PairedGraph,
    model: Any,
    images: Iterable[NDArray[np.uint8]],
    expected: NDArray[np.float32],
) -> float:
    """Mean absolute difference of the logits of ``model`` from ``expected``.

    ``model``: the integer graph, or a copy with other numbers or layers in float.
    """
    index = int(_last(graph).integer_operator.inputs[0])
    probe, code = Probe(model, [index]), code_of(graph, index)
    got = np.concatenate([code.dequantized(probe(pixels)[index]) for pixels in images])
    return float(np.abs(got - expected).mean())


def _last(graph: PairedGraph) -> Pair:
    if graph.pairs[-1].kind != "SOFTMAX":
        raise PairingError(f"the graph ends with {graph.pairs[-1].kind}, expected SOFTMAX")
    return graph.pairs[-1]
