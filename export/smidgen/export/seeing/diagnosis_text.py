"""A diagnosis as text: the layers in order, the worst ten, and what to try."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from smidgen.export.seeing.diagnosis import Diagnosis
from smidgen.export.seeing.layer_noise import EXACT_DB, LayerReport

_WIDTH = 100
_NAME = 30
_HEAD = (
    f"{'layer':<{_NAME}}  {'operator':<17} {'SQNR':>6} {'own':>6}  {'float range':>17}  "
    f"{'saturated':>9} {'spread':>6}"
)
_LAYERS_NAMED = 6


def as_text(found: Diagnosis) -> str:
    """The whole report, at most 100 characters wide, without a line break at its end."""
    ranks = {name: place for place, name in enumerate(found.worst, 1)}
    lines = [
        f"{found.file}: int8 against {found.source} in float, {found.images} calibration images",
        "SQNR: signal to quantization noise behind the layer, dB (20 dB: the noise has 1 % of the",
        "signal's power). own: of the noise beyond twice what came in (-: none). spread: largest",
        "channel range by the median one.",
        "",
        _HEAD,
        *(_row(layer, "") for layer in found.layers),
        "",
        f"the {len(ranks)} layers that add the most noise",
        *_worst(found),
        "",
        f"logits: {found.logits_db:.1f} dB",
        *_remedies(found),
    ]
    return "\n".join(lines)


def _worst(found: Diagnosis) -> Iterator[str]:
    by_name: dict[str, LayerReport] = {}
    for layer in found.layers:
        known = by_name.get(layer.layer)
        if known is None or layer.own_db < known.own_db:
            by_name[layer.layer] = layer
    for place, name in enumerate(found.worst, 1):
        yield _row(by_name[name], f"{place:>2} ")


def _row(layer: LayerReport, rank: str) -> str:
    name = _cut(rank + layer.layer, _NAME)
    values = f"{layer.float_min:.3g} .. {layer.float_max:.3g}"
    if layer.is_float:
        return f"{name:<{_NAME}}  {layer.operator:<17} {layer.sqnr_db:6.1f}  float {values:>20}"
    own = "-" if layer.own_db >= EXACT_DB else f"{layer.own_db:.1f}"
    saturated = f"{100 * layer.saturated:.3f} %"
    return (
        f"{name:<{_NAME}}  {layer.operator:<17} {layer.sqnr_db:6.1f} {own:>6}  "
        f"{values:>17}  {saturated:>9} {layer.channel_spread:6.1f}"
    )


def _remedies(found: Diagnosis) -> Iterator[str]:
    for remedy in found.remedies:
        yield from textwrap.wrap(
            f"{remedy.setting}: {remedy.why}", _WIDTH, initial_indent="-> ",
            subsequent_indent="   ", break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        if remedy.layers and remedy.layers[0] not in remedy.setting:
            yield from textwrap.wrap(
                _few(remedy.layers), _WIDTH, initial_indent="   ", subsequent_indent="   "
            )


def _few(names: Sequence[str]) -> str:
    more = len(names) - _LAYERS_NAMED
    return ", ".join(names[:_LAYERS_NAMED]) + (f", and {more} more" if more > 0 else "")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
