"""Which engine answers rightly for which Bundle, and which takes many times longer than another.

``KNOWN_PROBLEMS`` names every measured case; the rest says ``Manifest.minimum_runtime``, which the
exporter derives from the operators. ``promises_bits`` is what ``selftest`` holds an engine to.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from typing import Optional

from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.errors import EngineFailed
from smidgen.runtime.manifest import Manifest

NUMBERING = {
    "litert": "litert",
    "tflite": "tflite",
    "tensorflow": "tflite",
    "onnxruntime": "onnxruntime",
}
"""The key of ``Manifest.minimum_runtime`` that an engine's versions compare with: LiteRT counts
from 1 again, tflite-runtime has TensorFlow's numbers. Engines not named here are not compared."""


@dataclass(frozen=True)
class KnownProblem:
    """What ``engines`` do with Bundles of ``schemes``: ``wrong`` answers (or none), or slow ones.

    ``machines``: ``platform.machine()`` where it was measured; empty: it holds on all.
    """

    engines: tuple[str, ...]
    schemes: tuple[str, ...]
    wrong: bool
    what: str
    remedy: str
    source: str
    machines: tuple[str, ...] = ()


_X86 = ("x86_64", "AMD64")
KNOWN_PROBLEMS = (
    KnownProblem(
        ("tflite",),
        ("dynamic",),
        True,
        "has no FULLY_CONNECTED version 12, and its older dynamic-range kernels answer wrongly",
        "install ai-edge-litert, or export weights-int8 or int8",
        "measured, tflite-runtime 2.14.0 on x86-64: the converter's files are refused; with those "
        "of ai-edge-quantizer 0.10 39 of 40 labels differ from LiteRT's, and no error says so",
    ),
    KnownProblem(
        ("tflite",),
        ("int8",),
        False,
        "runs int8 about 20 times slower than LiteRT (XNNPACK of its time had no int8 by default)",
        "install ai-edge-litert",
        "measured, tflite-runtime 2.14.0 on x86-64: EfficientNet-Lite0, 89 against 4.3 ms",
        _X86,
    ),
    KnownProblem(
        ("litert", "tflite", "tensorflow"),
        ("int16x8",),
        False,
        "runs int16x8 about 50 times slower than float32 (XNNPACK has no kernels for it)",
        "export int8, or weights-int8 where int8 loses too much",
        "measured, LiteRT 2.3.0 on x86-64: EfficientNet-Lite0",
        _X86,
    ),
    KnownProblem(
        ("tflite-micro",),
        ("float32", "float16", "dynamic", "weights-int8", "int16x8"),
        True,
        "simulates microcontrollers, for which smidgen makes int8 Bundles alone",
        "export int8",
        "measured, tflite-micro of October 2026: float32 opens and fails at the first picture (no "
        "CAST from uint8); it has no hybrid kernels, and reads per-channel weights with one scale",
    ),
    KnownProblem(
        ("tflite-micro",),
        ("int8",),
        False,
        "is a simulation with reference kernels, about 100 times slower than LiteRT",
        "install ai-edge-litert, unless a microcontroller's answers are what you want",
        "measured, tflite-micro of October 2026 on x86-64: EfficientNet-Lite0, 600 against 4.3 ms",
    ),
)
"""Every case by name. A wrong one is refused; a slow one ``"auto"`` takes last, and warns."""


def check_fit(engine: str, version: str, manifest: Manifest, machine: str = "") -> None:
    """Raises EngineFailed when the engine is too old, or ``KNOWN_PROBLEMS`` has it as wrong.

    A version that is no number is taken to be new enough; ``machine`` is by default this one.
    """
    minimum = manifest.minimum_runtime.get(NUMBERING.get(engine, ""), "")
    found, needed = _numbers(version), _numbers(minimum)
    problem = _problem(engine, manifest, True, machine)
    if problem is not None:
        raise EngineFailed(
            f"{engine} {version} cannot run {manifest.scheme} Bundles: it {problem.what}; "
            f"{problem.remedy}"
        )
    if found and needed and found < needed:
        raise EngineFailed(
            f"{engine} {version} is too old for this Bundle, which needs {minimum} or newer; "
            "upgrade it"
        )


def slowness(engine: str, manifest: Manifest, machine: str = "") -> Optional[str]:
    """One line on why a Bundle runs many times slower there than it could; None: nothing known."""
    problem = _problem(engine, manifest, False, machine)
    return None if problem is None else f"{engine} {problem.what}; {problem.remedy}"


def promises_bits(
    engine: str, version: str, options: EngineOptions, manifest: Manifest, machine: str = ""
) -> bool:
    """Whether scores must equal, to the bit, those that the exporter stored in the golden sample.

    LiteRT promises it for int8 Bundles with XNNPACK and no other delegate, in the release and on
    the architecture that the exporter had (``provenance.versions``; older Bundles do not say the
    latter), for any number of threads: integer sums, and one rounding in float32. Measured with
    LiteRT 2.3.0 on x86-64 with SSE4, AVX2 and AVX-512 VNNI; its kernels for ARM round elsewhere.

    Everything else is promised within the golden sample's tolerance alone: floats are summed in an
    order that depends on CPU and threads; other TFLite engines round int8 at other places (up to 7
    steps of 1/256 measured); ONNX Runtime's int8 products saturate on x86 without VNNI.
    """
    here, made_with = machine or platform.machine(), manifest.provenance.versions
    same = version == made_with.get("ai-edge-litert") and here == made_with.get("machine")
    plain = not options.delegates or options.delegates == ("xnnpack",)
    is_int8 = manifest.scheme == "int8" and manifest.output.dtype != "float32"
    return engine == "litert" and is_int8 and plain and same


def _problem(engine: str, manifest: Manifest, wrong: bool, machine: str) -> Optional[KnownProblem]:
    here = machine or platform.machine()
    for problem in KNOWN_PROBLEMS:
        fits = engine in problem.engines and manifest.scheme in problem.schemes
        if fits and problem.wrong == wrong and (not problem.machines or here in problem.machines):
            return problem
    return None


def _numbers(text: str) -> tuple[int, ...]:
    """The leading dotted numbers, trailing zeros dropped; () for anything else."""
    match = re.match(r"\d+(\.\d+)*", text.strip())
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
