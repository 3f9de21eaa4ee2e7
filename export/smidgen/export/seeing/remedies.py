"""What to try against quantization noise: rules over the layers' reports, a pure function.

The thresholds are of signal-to-noise practice: at 20 dB the noise has a hundredth of the signal's
power, at 10 dB a tenth. The rules name causes that can be told from outside; whether a remedy
helps, the gate says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smidgen.export.seeing.layer_noise import EXACT_DB, LayerReport, NoiseReport
from smidgen.runtime.manifest import Verdict

GOOD_DB, POOR_DB = 20.0, 10.0
MUCH_SATURATED = 1e-3
WIDE_SPREAD = 10.0
_FEW = 5
"""Layers that may stay float without losing what int8 is for."""

_FAR_BELOW_DB = 8.0
"""Of a layer's own noise against the median layer's: it stands out."""

WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_ENDS = frozenset({"SOFTMAX"})


@dataclass(frozen=True)
class Remedy:
    """One thing to try: ``setting`` as it stands in a recipe, why, and the layers it is about."""

    setting: str
    why: str
    layers: tuple[str, ...] = ()


def remedies_for(report: NoiseReport, verdict: Verdict | None = None) -> tuple[Remedy, ...]:
    """What to try, the cheapest first; one that says so where nothing needs to be done.

    Args:
        report: of the file.
        verdict: its gate's, where one ran.
    """
    found = (
        *_per_tensor(report),
        *_saturation(report),
        *_channels(report),
        *_few_layers(report),
        *_everywhere(report),
    )
    if verdict is not None and verdict.verdict == "pass":
        more = "; what follows is for more" if found else ""
        return (Remedy("nothing", _passed(verdict) + more), *found)
    return found or (Remedy("nothing", "no layer stands out, and the noise is small"),)


def logits_db(layers: Sequence[LayerReport]) -> float:
    """Signal to noise of the logits: of the last layer before the softmax."""
    inner = [layer for layer in layers if layer.operator not in _ENDS]
    return inner[-1].sqnr_db


def worst(layers: Sequence[LayerReport], count: int = 10) -> tuple[LayerReport, ...]:
    """The layers that add the most noise, the worst first."""
    quantized = [layer for layer in layers if not layer.is_float and layer.operator not in _ENDS]
    return tuple(sorted(quantized, key=lambda layer: layer.own_db)[:count])


def _per_tensor(report: NoiseReport) -> Iterator[Remedy]:
    if report.per_tensor_kernels:
        yield Remedy(
            'quantization.weight_scales = "per-channel"',
            "kernels of several channels share one scale",
            report.per_tensor_kernels,
        )


def _saturation(report: NoiseReport) -> Iterator[Remedy]:
    cut = [layer for layer in report.layers if layer.saturated > MUCH_SATURATED]
    if cut:
        most = max(layer.saturated for layer in cut)
        yield Remedy(
            'quantization.calibrator = "min-max", or a higher percentile',
            f"values lie outside the int8 range, up to {100 * most:.2g} % of a layer's",
            _names(sorted(cut, key=lambda layer: -layer.saturated)),
        )


def _channels(report: NoiseReport) -> Iterator[Remedy]:
    poor = [
        layer
        for layer in worst(report.layers)
        if layer.channel_spread > WIDE_SPREAD and layer.own_db < GOOD_DB
    ]
    if poor:
        yield Remedy(
            "quantization.equalize = true",
            f"single channels have up to {max(x.channel_spread for x in poor):.0f} times the "
            "median channel's range, and set the step for all",
            _names(poor),
        )


def _few_layers(report: NoiseReport) -> Iterator[Remedy]:
    quantized = [layer for layer in report.layers if not layer.is_float]
    middle = sorted(layer.own_db for layer in quantized)[len(quantized) // 2]
    bad = [
        layer
        for layer in worst(report.layers, len(quantized))
        if layer.operator in WEIGHTED
        and layer.own_db < GOOD_DB
        and layer.own_db < middle - _FAR_BELOW_DB
    ]
    if 0 < len(bad) <= _FEW:
        names = ", ".join(f'"{name}"' for name in _names(bad))
        others = (
            "most, which add none" if middle >= EXACT_DB else f"the median one ({middle:.0f} dB)"
        )
        yield Remedy(
            f"quantization.float_layers = [{names}]",
            f"few layers add far more noise than {others}",
            _names(bad),
        )


def _everywhere(report: NoiseReport) -> Iterator[Remedy]:
    ratio = logits_db(report.layers)
    if ratio >= GOOD_DB:
        return
    strength = "much" if ratio < POOR_DB else "some"
    yield Remedy(
        "export.calibration_images = 500, then qat.epochs = 2",
        f"{strength} noise in the logits ({ratio:.1f} dB), gathered along the way: better ranges "
        "first, then quantization-aware training",
    )


def _passed(verdict: Verdict) -> str:
    return (
        f"the gate passed: drop {verdict.drop_points:.2f} points "
        f"[{verdict.drop_low_points:.2f}, {verdict.drop_high_points:.2f}]"
    )


def _names(layers: Sequence[LayerReport]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer.layer for layer in layers))
