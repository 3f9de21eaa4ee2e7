"""One pass of the calibration images through the float graph, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smidgen.export.quantization.activations import Probe
from smidgen.export.quantization.histogram import Histogram
from smidgen.export.quantization.moments import PatchMoments, patch_moments
from smidgen.export.quantization.pairing import PairedGraph


@dataclass(frozen=True)
class Observation:
    """By float tensor: the values' histogram. By pair position: the kernels' patch moments.

    Memory: 32 kB for each tensor, and 4 bytes for each entry of a covariance: 45 MB for
    EfficientNet-Lite0. No activation outlives its image.
    """

    histograms: dict[int, Histogram]
    moments: dict[int, PatchMoments]


def observe(
    graph: PairedGraph,
    images: Iterable[NDArray[np.float32]],
    advance: Callable[[int], None],
    *,
    with_moments: bool = True,
) -> Observation:
    """Run ``images``, ``(1, H, W, 3) float32`` decoded pixels each; ``advance(1)`` for each."""
    entry = int(graph.float_model.subgraphs[0].inputs[0])
    histograms = {index: Histogram() for index in graph.activations}
    moments = patch_moments(graph) if with_moments else {}
    sources = {at: int(graph.pairs[at].float_operator.inputs[0]) for at in moments}
    wanted = [*histograms, *(index for index in sources.values() if index != entry)]
    probe = Probe(graph.float_model, wanted)
    for number, image in enumerate(images):
        values = probe(image)
        for index, histogram in histograms.items():
            histogram.add(values[index])
        values[entry] = image
        for at, source in sources.items():
            moments[at].add(values[source], number)
        advance(1)
    return Observation(histograms, moments)
