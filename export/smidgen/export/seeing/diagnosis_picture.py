"""A diagnosis as a picture: signal to noise along the depth, ranges, and the worst layers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smidgen.export.seeing.diagnosis import Diagnosis
from smidgen.export.seeing.layer_noise import EXACT_DB, LayerReport
from smidgen.export.seeing.remedies import GOOD_DB, MUCH_SATURATED, POOR_DB
from smidgen.train.seeing.canvas import BLUE, GREEN, GREY, RED, drawable, drawn

_KINDS = {
    "CONV_2D": (BLUE, "o", "convolution"),
    "DEPTHWISE_CONV_2D": (GREEN, "s", "depthwise convolution"),
    "ADD": ("#9a6700", "^", "addition"),
}
_OTHER = (GREY, "D", "other")


def draw_diagnosis(found: Diagnosis, path: Path) -> None:
    """Draw ``found`` into one PNG of about 1,200 x 850 pixels. Raises OutputError."""
    title = (
        f"{found.file}: noise of int8 behind each layer, {found.images} images\n"
        f"logits {found.logits_db:.1f} dB"
    )
    with drawn(path, 11.2, 7.8, title) as figure:
        halves: Any = figure.subfigures(1, 2, width_ratios=[3.1, 1])
        left, right = halves
        ratios, ranges = left.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
        _draw_ratios(ratios, found)
        _draw_ranges(ranges, found.layers)
        _draw_list(right.subplots(), found)


def _draw_ratios(axes: Any, found: Diagnosis) -> None:
    layers = found.layers
    depth = range(len(layers))
    shown = [min(layer.sqnr_db, EXACT_DB) for layer in layers]
    axes.plot(depth, shown, color=GREY, lw=0.9, zorder=1)
    for colour, marker, name in dict.fromkeys((*_KINDS.values(), _OTHER)):
        places = [at for at in depth if _KINDS.get(layers[at].operator, _OTHER)[2] == name]
        values = [shown[at] for at in places]
        axes.plot(places, values, marker, color=colour, ms=5, label=name, zorder=2)
    for ratio, share in ((GOOD_DB, "1 %"), (POOR_DB, "10 %")):
        axes.axhline(ratio, color=RED, lw=0.8, ls="--", alpha=0.7)
        axes.text(
            len(layers) - 0.4, ratio, f" {share}", color=RED, fontsize=8, va="center",
            clip_on=False,
        )  # fmt: skip
    _number_worst(axes, found, shown)
    axes.set_ylim(min(0.0, *shown) - 2, max(shown) + 6)
    axes.set_ylabel("signal to quantization noise, dB")
    axes.set_title("red lines: power of the noise as a share of the signal's", fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right", ncols=4, frameon=False, fontsize=8)


def _number_worst(axes: Any, found: Diagnosis, shown: Sequence[float]) -> None:
    for place, name in enumerate(found.worst, 1):
        at = _place_of(found, name)
        axes.annotate(
            str(place), (at, shown[at]), (0, -13), textcoords="offset points", ha="center",
            va="center", fontsize=8, color="white",
            bbox={"boxstyle": "circle,pad=0.18", "facecolor": RED, "edgecolor": "white"},
        )  # fmt: skip


def _draw_ranges(axes: Any, layers: Sequence[LayerReport]) -> None:
    depth = list(range(len(layers)))
    heights = [layer.float_max - layer.float_min for layer in layers]
    lows = [layer.float_min for layer in layers]
    axes.bar(depth, heights, 0.78, lows, color=GREY, alpha=0.55, label="float values")
    quantized = [at for at in depth if not layers[at].is_float]
    for at in quantized:
        layer, is_first = layers[at], at == quantized[0]
        axes.bar(
            at, layer.int8_max - layer.int8_min, 0.78, layer.int8_min, facecolor="none",
            edgecolor=BLUE, lw=1.0, label="int8 range" if is_first else None,
        )  # fmt: skip
    cut = [at for at in depth if layers[at].saturated > MUCH_SATURATED]
    if cut:
        axes.plot(
            cut, [layers[at].float_max for at in cut], "v", color=RED, ms=6, clip_on=False,
            label=f"more than {100 * MUCH_SATURATED:g} % saturated",
        )  # fmt: skip
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("values (linear within ±1)")
    axes.set_xlabel("layers in the order in which they run")
    axes.set_xlim(-0.8, len(layers) - 0.2)
    axes.grid(axis="y", alpha=0.3)
    lowest = min(layer.int8_min for layer in layers)
    highest = max(layer.float_max for layer in layers)
    axes.set_ylim(min(-0.3, 1.6 * min(lowest, *lows)), 1.8 * highest)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, frameon=False, fontsize=8)


def _draw_list(axes: Any, found: Diagnosis) -> None:
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(0, 0.985, "most noise added", fontsize=9, weight="bold", va="top")
    axes.text(1, 0.985, "own dB", fontsize=9, weight="bold", va="top", ha="right")
    for place, name in enumerate(found.worst, 1):
        height = 0.985 - 0.063 * place
        layer = found.layers[_place_of(found, name)]
        axes.text(
            0.035, height, str(place), fontsize=8, color="white", ha="center", va="top",
            bbox={"boxstyle": "circle,pad=0.18", "facecolor": RED, "edgecolor": "white"},
        )  # fmt: skip
        axes.text(0.1, height, drawable(name, 27), fontsize=8, va="top")
        axes.text(0.1, height - 0.026, layer.operator, fontsize=7, color=GREY, va="top")
        axes.text(1, height, f"{layer.own_db:.1f}", fontsize=8, va="top", ha="right")
    _draw_remedies(axes, found, 0.985 - 0.063 * len(found.worst) - 0.08)


def _draw_remedies(axes: Any, found: Diagnosis, top: float) -> None:
    """What to try, as far as there is room."""
    lines = ["what to try"]
    for remedy in found.remedies:
        lines += textwrap.wrap(
            drawable(remedy.setting), 40, subsequent_indent="   ", break_on_hyphens=False
        )
    room = max(1, int(top / 0.028))
    for at, line in enumerate(lines[:room]):
        weight, size = ("bold", 9) if at == 0 else ("normal", 8)
        axes.text(0, top - 0.028 * at, line, fontsize=size, weight=weight, va="top")


def _place_of(found: Diagnosis, name: str) -> int:
    """Where the layer of that name adds the most noise."""
    places = [at for at, layer in enumerate(found.layers) if layer.layer == name]
    return min(places, key=lambda at: found.layers[at].own_db)
