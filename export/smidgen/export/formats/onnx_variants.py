"""Which int8 ONNX file is fastest on this machine: measured, since the best one elsewhere may be
slower than float32 here.

Files are timed in processes of their own, in rounds that visit each file once, so that whatever
slows the machine for a while slows all of them (Georges, Buytaert, Eeckhout 2007, "Statistically
rigorous Java performance evaluation", on repeated invocations). A later file is taken only where it
is clearly faster than the preferred one; a difference within the noise is a tie.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, Protocol

from smidgen.export.errors import ConversionError
from smidgen.export.formats.child import run_child
from smidgen.export.formats.integer_onnx import to_onnx_int8
from smidgen.export.formats.onnx_values import Activations

FLOAT_NAME = "float32"
ROUNDS = 7
CLEARLY_FASTER = 1.05
"""Median over the rounds of one file's time by another's; less counts as a tie."""

SHARE_OF_ROUNDS = 0.8
"""And in this share of the rounds."""

_ACTIVATIONS: tuple[Activations, ...] = ("u8", "s8")


@dataclass(frozen=True)
class Variant:
    """One int8 ``.onnx`` file that may be shipped."""

    name: str
    data: bytes


class LatencyTimer(Protocol):
    """Times ONNX files."""

    def measure(self, files: Mapping[str, bytes]) -> dict[str, tuple[float, ...]]:
        """Milliseconds of one run with batch 1, per file one figure for each round.

        Raises:
            CandidateFailed: a file does not run.
        """


@dataclass(frozen=True)
class VariantChoice:
    """The variant to ship.

    ``advice`` is ``keep float`` where no int8 file is faster than float32 here: the int8 file is
    then smaller only. ``round_ms`` holds what was measured; ``facts`` says it in words.
    """

    variant: Variant
    advice: Literal["", "keep float"]
    round_ms: dict[str, tuple[float, ...]]
    facts: dict[str, str]


def variants_of(int8_tflite: Sequence[tuple[str, bytes]]) -> tuple[Variant, ...]:
    """uint8 and int8 activations of each named int8 TFLite file, the preferred ones first.

    Args:
        int8_tflite: such as ``("per-channel", file)`` and ``("per-tensor", file)``; one alone may
            have an empty name.

    Raises:
        ConversionError: a file that has no int8 ONNX form.
    """
    return tuple(
        Variant(f"{activations}s8 {name}".strip(), to_onnx_int8(data, activations))
        for activations in _ACTIVATIONS
        for name, data in int8_tflite
    )


def choose_variant(
    variants: Sequence[Variant], float32_onnx: bytes, timer: LatencyTimer | None = None
) -> VariantChoice:
    """The fastest variant; on a tie the one that comes first.

    Args:
        variants: in the order of preference, names all different.
        float32_onnx: the float32 file of the same network.
        timer: None: ``ChildTimer``, on this machine.

    Raises:
        ConversionError: no variants.
        CandidateFailed: a file does not run.
    """
    if not variants:
        raise ConversionError("there is no int8 .onnx file to choose from: give at least one")
    files = {FLOAT_NAME: float32_onnx, **{variant.name: variant.data for variant in variants}}
    if len(files) != len(variants) + 1:
        raise ConversionError("two int8 .onnx files have one name: name each variant once")
    times = (timer or ChildTimer()).measure(files)
    best = variants[0]
    for variant in variants[1:]:
        if _is_clearly_faster(times[variant.name], times[best.name]):
            best = variant
    is_slow = not _is_clearly_faster(times[best.name], times[FLOAT_NAME])
    facts = {"machine": _machine(), "chosen": best.name, "rounds": str(len(times[best.name]))}
    facts |= {f"{name} ms": f"{median(figures):.2f}" for name, figures in times.items()}
    if is_slow:
        facts["advice"] = (
            "keep float: no int8 .onnx file is clearly faster than float32 on this machine"
        )
    return VariantChoice(best, "keep float" if is_slow else "", times, facts)


@dataclass(frozen=True)
class ChildTimer:
    """Times each file in a new process in each round, the first file another one each round."""

    rounds: int = ROUNDS
    worker: tuple[str, ...] = (sys.executable, "-P", "-m", "smidgen.export.formats.timing_worker")
    timeout_seconds: float = 300.0

    def measure(self, files: Mapping[str, bytes]) -> dict[str, tuple[float, ...]]:
        """See LatencyTimer."""
        names = list(files)
        times: dict[str, list[float]] = {name: [] for name in names}
        with tempfile.TemporaryDirectory(prefix="smidgen-variants-") as folder:
            paths = {name: Path(folder, f"{place}.onnx") for place, name in enumerate(names)}
            for name, path in paths.items():
                path.write_bytes(files[name])
            for turn in range(self.rounds):
                first = turn % len(names)
                for name in names[first:] + names[:first]:
                    times[name].append(self._time(name, paths[name]))
        return {name: tuple(figures) for name, figures in times.items()}

    def _time(self, name: str, path: Path) -> float:
        timings = run_child(
            [*self.worker, str(path)],
            f"the .onnx file {name}",
            timeout_seconds=self.timeout_seconds,
            engine="ONNX Runtime",
        )
        return float(median(json.loads(timings)))


@dataclass(frozen=True)
class FakeTimer:
    """For tests: the times are given. ``round_ms``: file name to milliseconds of each round."""

    round_ms: Mapping[str, Sequence[float]]

    def measure(self, files: Mapping[str, bytes]) -> dict[str, tuple[float, ...]]:
        """See LatencyTimer."""
        return {name: tuple(self.round_ms[name]) for name in files}


def _is_clearly_faster(times: Sequence[float], than: Sequence[float]) -> bool:
    ratios = [slow / fast for fast, slow in zip(times, than, strict=True)]
    won = sum(ratio > 1 for ratio in ratios) / len(ratios)
    return median(ratios) > CLEARLY_FASTER and won >= SHARE_OF_ROUNDS


def _machine() -> str:
    """Processor and number of cores, as far as the system tells."""
    name = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count() or 1} cores"
