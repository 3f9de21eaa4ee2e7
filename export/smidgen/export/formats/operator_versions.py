"""Which runtime is the first to know a version of a TFLite operator.

An interpreter refuses a file that names an operator version which it does not register, also where
that operator is never reached.
"""

from __future__ import annotations

from collections.abc import Callable

from smidgen.export.formats.operator_table import FIRST_LITERT, FIRST_TFLITE, LITERT_RELEASES

Release = tuple[int, ...]
"""Numbers of a release, ``(2, 14, 0)``; compared as tuples."""


def release(text: str) -> Release:
    """``"2.14.0"`` as ``(2, 14, 0)``; what follows the first letter is left out."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers) + (0,) * (3 - len(numbers))


def first_tflite(operator: str, version: int) -> str:
    """The first TensorFlow (or tflite-runtime) release with it, ``2.17.0``; empty: none known."""
    known = _TFLITE.get(operator, ())
    return known[version - 1] if 0 < version <= len(known) else ""


def first_litert(operator: str, version: int) -> str:
    """The first ai-edge-litert release with it, ``2.1.0``; empty: none known."""
    if not first_tflite(operator, version):
        return ""
    return _LITERT.get((operator, version), LITERT_RELEASES[0])


def highest_version(
    operator: str, has: Callable[[str], bool], first: Callable[[str, int], str]
) -> int:
    """The highest version whose ``first`` release satisfies ``has``; 0: none."""
    fitting = [
        version
        for version in range(1, len(_TFLITE.get(operator, ())) + 1)
        if first(operator, version) and has(first(operator, version))
    ]
    return max(fitting, default=0)


def _tflite_table() -> dict[str, tuple[str, ...]]:
    table = {}
    for line in FIRST_TFLITE.strip().splitlines():
        operator, *releases = line.split()
        table[operator] = tuple("" if text == "-" else _three(text) for text in releases)
    return table


def _litert_table() -> dict[tuple[str, int], str]:
    table = {}
    for line in FIRST_LITERT.strip().splitlines():
        operator, *entries = line.split()
        for entry in entries:
            version, _, first = entry.partition(":")
            table[operator, int(version)] = "" if first == "-" else first
    return table


def _three(text: str) -> str:
    return text if text.count(".") == 2 else f"{text}.0"


_TFLITE = _tflite_table()
_LITERT = _litert_table()
