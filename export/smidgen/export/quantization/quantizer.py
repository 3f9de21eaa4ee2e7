"""smidgen's int8 quantizer: a float network and calibration images to a full-integer TFLite file.

The converter makes the integer graph, whose operators and versions are known to run; every number
in it is set here. Where the float and the integer graph of a network do not correspond, the
converter's own numbers are kept, and the facts say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.calibration import Calibration
from smidgen.export.errors import PairingError
from smidgen.export.formats import tflite_file, to_tflite
from smidgen.export.graphs.deploy_graph import PixelCode, pixel_code
from smidgen.export.quantization.calibrators import calibrator_of
from smidgen.export.quantization.equalization import equalize
from smidgen.export.quantization.histogram import Histogram, joined
from smidgen.export.quantization.kernels import quantize_kernels
from smidgen.export.quantization.mixed_precision import positions_of, with_float_layers
from smidgen.export.quantization.numbers import Code, code_of, set_code, shared_codes
from smidgen.export.quantization.observation import observe
from smidgen.export.quantization.pairing import PairedGraph, copied, pair_up
from smidgen.export.quantization.sensitivity import (
    float_logits,
    graph_sensitivity,
    logit_error,
    worst_layers,
)
from smidgen.export.quantization.twins import float_twin, integer_draft
from smidgen.export.recipe import QuantizationRecipe
from smidgen.export.source import ChannelNormalization

_SENSITIVITY_IMAGES = 24
_TRIAL_IMAGES = 48


@dataclass(frozen=True)
class Quantized:
    """An int8 TFLite file and how it was made.

    Attributes:
        data: the file; ``(1, H, W, 3) uint8`` pixels to ``(1, classes) uint8`` probabilities.
        facts: for the manifest.
        float_twin: the float file with the same operators and channel scales, for ``noise`` and
            ``sensitivity``.
        note: empty, or why the converter's own numbers were kept.
    """

    data: bytes
    facts: dict[str, str]
    float_twin: bytes
    note: str = ""


def quantize(
    model: Any,
    normalization: ChannelNormalization,
    calibration: Calibration,
    settings: QuantizationRecipe,
    advance: Callable[[int], None],
) -> Quantized:
    """Quantize ``model`` to int8.

    Args:
        model: normalised ``(N, H, W, 3) float32`` to logits ``(N, classes)``, BatchNorm folded.
        normalization: of the model.
        calibration: the images that ranges and rounding are chosen on.
        settings: the ``[quantization]`` table.
        advance: called with 1 for each calibration image.

    Raises:
        ConversionError: the converter failed, or its file is not what it should be.
    """
    real = float_twin(model, normalization)
    code = pixel_code(normalization)
    try:
        draft = integer_draft(model, normalization, calibration)
        graph = pair_up(tflite_file.read_model(real), tflite_file.read_model(draft))
        facts = set_numbers(graph, lambda: decoded(calibration, code), settings, advance)
    except PairingError as error:
        data = to_tflite.to_tflite_int8(model, normalization, calibration, advance)
        facts = {"quantizer": "converter", "calibrator": "min-max", "why": str(error)}
        return Quantized(data, facts, real, note=str(error))
    to_tflite.check_int8(graph.integer_model, code)
    layers = float_layers(graph, calibration, settings)
    if layers:
        facts["float_layers"] = ", ".join(layers)
    mixed = with_float_layers(graph, positions_of(graph, layers)) if layers else graph.integer_model
    twin = tflite_file.write_model(graph.float_model)
    return Quantized(tflite_file.write_model(mixed), facts, twin)


def float_layers(
    graph: PairedGraph, calibration: Calibration, settings: QuantizationRecipe
) -> tuple[str, ...]:
    """The layers that stay float: those named, and the ``mixed`` ones that cost the most."""
    layers = settings.float_layers
    if settings.mixed:
        images = islice(calibration.pixels(), _SENSITIVITY_IMAGES)
        rows = graph_sensitivity(graph, images, lambda _: None)
        others = [row for row in rows if row.layer not in layers]
        layers += worst_layers(others, settings.mixed)
    return layers


def decoded(calibration: Calibration, code: PixelCode) -> Iterator[NDArray[np.float32]]:
    """The calibration images as the float graph takes them, one by one."""
    return (code.decode(pixels) for pixels in calibration.pixels())


def set_numbers(
    graph: PairedGraph,
    images: Callable[[], Iterator[NDArray[np.float32]]],
    settings: QuantizationRecipe,
    advance: Callable[[int], None],
) -> dict[str, str]:
    """Set all numbers of the integer graph, in place, and say how.

    Args:
        graph: the float and the integer graph.
        images: gives the decoded calibration images anew, ``(1, H, W, 3) float32`` each.
        settings: the ``[quantization]`` table.
        advance: called with 1 for each image of the last pass.
    """
    equalized = "off"
    if settings.equalize:
        equalized = equalize_where_it_pays(graph, images, settings)
    seen = observe(graph, images(), advance)
    set_activation_codes(graph, seen.histograms, settings)
    quantize_kernels(graph, seen.moments, settings)
    return {
        "quantizer": "smidgen",
        "calibrator": settings.calibrator,
        "weight_scales": settings.weight_scales,
        "rounding": "least output error",
        "equalization": equalized,
        "bias_correction": "on" if settings.bias_correction else "off",
    }


def equalize_where_it_pays(
    graph: PairedGraph,
    images: Callable[[], Iterator[NDArray[np.float32]]],
    settings: QuantizationRecipe,
) -> str:
    """Equalize the float graph in place if that helps images it has not seen; what was done.

    It is tried both ways on up to 48 images: three of four give the factors and ranges, the
    others the error of the logits. On all images the factors would always seem to help.
    """
    sample = list(islice(images(), _TRIAL_IMAGES))
    unseen = sample[::4]
    fit = [image for number, image in enumerate(sample) if number % 4]
    plain, equalized = copied(graph), copied(graph)
    before = observe(equalized, fit, lambda _: None, with_moments=False).histograms
    groups = equalize(equalized, before)
    if groups == 0:
        return "no channels that can be rescaled"
    errors = [_trial_error(twin, fit, unseen, settings) for twin in (plain, equalized)]
    found = f"logit error {errors[0]:.4f} without, {errors[1]:.4f} with"
    if errors[1] >= errors[0]:
        return f"tried, no gain ({found})"
    equalize(graph, observe(graph, images(), lambda _: None, with_moments=False).histograms)
    return f"{groups} groups of channels ({found})"


def _trial_error(
    graph: PairedGraph,
    fit: list[NDArray[np.float32]],
    unseen: list[NDArray[np.float32]],
    settings: QuantizationRecipe,
) -> float:
    """The error on ``unseen`` with numbers from ``fit``, each weight rounded to nearest."""
    seen = observe(graph, fit, lambda _: None)
    set_activation_codes(graph, seen.histograms, settings)
    quantize_kernels(graph, seen.moments, settings, to_nearest=True)
    code = code_of(graph, int(graph.integer_model.subgraphs[0].inputs[0]))
    pixels = [np.rint(image / code.scale + code.zero_point).astype(np.uint8) for image in unseen]
    return logit_error(graph, graph.integer_model, pixels, float_logits(graph, pixels))


def set_activation_codes(
    graph: PairedGraph, histograms: dict[int, Histogram], settings: QuantizationRecipe
) -> None:
    """Set scale and zero point of each free activation from what was seen of it."""
    calibrator = calibrator_of(settings)
    for group in shared_codes(graph):
        seen = [
            histograms[i] for i in sorted({graph.float_of[i] for i in group}) if i in histograms
        ]
        if not seen:
            raise PairingError("an activation that no operator computes: quantize by the converter")
        low, high = calibrator(seen[0] if len(seen) == 1 else joined(seen))
        for index in group:
            set_code(graph, index, Code.of(low, high))
