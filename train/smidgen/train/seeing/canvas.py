"""Drawing into PNG files with matplotlib, without a display and without its global state.

Class and file names are drawn as they are: no TeX in them, in any script for which a font is
installed. DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic and Hebrew;
for other scripts the fonts of ``_FALLBACK_FONTS`` are used where the machine has them.
"""

from __future__ import annotations

import contextlib
import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from smidgen.runtime.files import replacing

BLUE, GREY, GREEN, RED = "#1f6feb", "#8a8f98", "#1a7f37", "#cf222e"

DPI = 110
_UNKNOWN = "\0"
_TITLE_POINTS = 12.0
_POINTS_PER_INCH = 72
_CHARACTER_WIDTH = 0.56
"""Of the font's size, a little more than the mean of Latin text."""

_FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback",
    "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "PingFang SC",
    "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS", "Unifont",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI",
    "Leelawadee UI", "Noto Emoji",
)  # fmt: skip


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float, title: str = "") -> Iterator[Figure]:
    """An empty figure of ``width`` x ``height`` inches, written to ``path`` as PNG at the end.

    For one thread at a time: matplotlib's settings are global while the block runs, and are then
    as they were. Raises OutputError where the file cannot be written.
    """
    settings = {
        "font.family": list(_fonts()), "text.parse_math": False, "axes.titlesize": 10,
        "axes.axisbelow": True,
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        if title:
            lines = [drawable(line) for line in title.splitlines()]
            figure.suptitle("\n".join(lines), fontsize=_size_that_fits(lines, width))
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def drawable(text: str, most: int = 0) -> str:
    """``text`` in one line, with ``?`` for characters that no font here can draw.

    A ``most`` above 0 cuts a longer text in its middle: names that begin alike often end
    differently.
    """
    line = "".join(_drawable(character) for character in " ".join(text.split()))
    line = re.sub(f"{_UNKNOWN}+", "?", line)
    if not 0 < most < len(line):
        return line
    tail = (most - 1) // 2
    return f"{line[: most - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{line[len(line) - tail :]}"


def class_names(
    labels: Sequence[str], most: int, numbers: Sequence[int] | None = None
) -> tuple[str, ...]:
    """The labels as they are drawn, at most ``most`` characters each, each of them different.

    A label that cannot be drawn at all becomes its number, counted from 0 as in the network's
    outputs; labels that would look alike get it. ``numbers`` are those of ``labels`` where these
    are not all classes in their order.
    """
    shown = [drawable(label, most) for label in labels]
    return tuple(
        _numbered(text, number, most) if shown.count(text) > 1 or not text.strip("? ") else text
        for number, text in zip(numbers or range(len(shown)), shown, strict=True)
    )


def luminance(colours: np.ndarray) -> np.ndarray:
    """Relative luminance, 0..1, of ``(..., 3+) float`` RGB 0..1 (ITU-R BT.709)."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    result: np.ndarray = colours[..., :3] @ weights
    return result


def _numbered(text: str, number: int, most: int) -> str:
    mark = f" #{number}"
    return f"{text.strip('? ')[: most - len(mark)]}{mark}".strip()


def _size_that_fits(lines: Sequence[str], width: float) -> float:
    """Points at which the longest line is not wider than ``width`` inches."""
    longest = max(map(len, lines))
    return min(_TITLE_POINTS, width * _POINTS_PER_INCH / (longest * _CHARACTER_WIDTH))


@functools.cache
def _fonts() -> tuple[str, ...]:
    """Families to look for a character in, first to last; only such as are installed."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed))


@functools.cache
def _drawable(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
        return _UNKNOWN
    if unicodedata.category(character) == "Cf":
        return ""
    return character if any(_has(family, character) for family in _fonts()) else _UNKNOWN


@functools.cache
def _has(family: str, character: str) -> bool:
    font = font_manager.get_font(font_manager.findfont(family))
    return bool(font.get_char_index(ord(character)))
