"""Inference engines: who can run a Bundle on this machine.

``ENGINES`` names every choice; what an engine is, says ``engine.Engine``. Engine libraries are
imported when an engine is loaded, never before.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Sequence
from typing import Union

from smidgen.runtime.compatibility import check_fit, slowness
from smidgen.runtime.engine import Engine
from smidgen.runtime.engine_checks import ModelFormat
from smidgen.runtime.errors import EngineError, EngineFailed, EngineMissing, SlowEngineWarning
from smidgen.runtime.manifest import Manifest
from smidgen.runtime.micro_engine import MicroEngine
from smidgen.runtime.onnxruntime_engine import OnnxRuntimeEngine
from smidgen.runtime.tflite_engine import TfliteEngine

ENGINES: dict[str, Engine] = {
    "litert": TfliteEngine("litert", "ai_edge_litert.interpreter", "ai-edge-litert"),
    "tflite": TfliteEngine("tflite", "tflite_runtime.interpreter", "tflite-runtime"),
    "tensorflow": TfliteEngine("tensorflow", "tensorflow", "tensorflow"),
    "onnxruntime": OnnxRuntimeEngine(),
    "tflite-micro": MicroEngine(
        "tflite-micro", "tflite_micro.python.tflite_micro.runtime", "tflite-micro"
    ),
}
"""Every engine by name; ``backend="auto"`` tries those of the Bundle's format in this order."""


def select_engine(backend: Union[str, Engine], manifest: Manifest) -> Engine:
    """The engine for a Bundle, its library imported.

    Args:
        backend: a name of ``ENGINES``, ``"auto"`` (the first one that is installed, imports, is new
            enough and right for the Bundle; slow ones last), or an engine object.
        manifest: of the Bundle.

    Raises:
        EngineMissing: none is installed, or its library does not import.
        EngineFailed: an unknown name, an engine for another format, or one that would not run the
            Bundle or answer wrongly (``compatibility``): all reasons, where there are several.

    Warns:
        SlowEngineWarning: the engine runs this Bundle many times slower than another would.
    """
    candidates = _candidates(backend, manifest)
    refusals: list[EngineError] = []
    for engine in candidates:
        if engine.model_format != manifest.model_format:
            raise EngineFailed(
                f"backend {engine.name!r} runs .{engine.model_format} files, this Bundle is "
                f".{manifest.model_format}; use backend 'auto'"
            )
        if not engine.available():
            continue
        try:
            engine.load()
            check_fit(engine.name, engine.version(), manifest)
        except EngineError as error:
            refusals.append(error)
            continue
        slow = slowness(engine.name, manifest)
        if slow is not None:
            warnings.warn(slow, SlowEngineWarning, stacklevel=2)
        return engine
    if refusals:
        absent_only = all(isinstance(error, EngineMissing) for error in refusals)
        kind = EngineMissing if absent_only else EngineFailed
        raise kind("; ".join(str(error) for error in refusals))
    from smidgen.runtime.machine import wheel_machine

    wanted = "no engine" if backend == "auto" else f"the engine {candidates[0].name!r}"
    absent = "is installed" if backend == "auto" else "is not installed"
    advice = install_advice(
        manifest.model_format, sys.version_info[:2], sys.platform, wheel_machine()
    )
    if backend == "tflite-micro":
        advice = "run `pip install tflite-micro`"
    raise EngineMissing(f"{wanted} for .{manifest.model_format} Bundles {absent}: {advice}")


def _candidates(backend: Union[str, Engine], manifest: Manifest) -> Sequence[Engine]:
    if not isinstance(backend, str):
        return [backend]
    if backend == "auto":
        fitting = [one for one in ENGINES.values() if one.model_format == manifest.model_format]
        return sorted(fitting, key=lambda one: slowness(one.name, manifest) is not None)
    if backend in ENGINES:
        return [ENGINES[backend]]
    raise EngineFailed(_unknown_backend(backend))


def install_advice(
    model_format: ModelFormat, python: tuple[int, int], system: str, machine: str
) -> str:
    """What to install for a Bundle, knowing for which machines wheels exist (November 2026).

    Args:
        model_format: of the Bundle.
        python: such as ``(3, 11)``.
        system: as ``sys.platform``.
        machine: as ``platform.machine()``.
    """
    here = f"Python {python[0]}.{python[1]} on {system} {machine}"
    is_32_bit = machine.lower() in ("armv7l", "armv6l", "armv8l", "i686", "i386", "x86")
    if model_format == "onnx":
        if is_32_bit:
            return f"no onnxruntime wheel exists for {here}; use the .tflite Bundle instead"
        return f'run `pip install "smidgen-runtime[onnx]"` ({here})'
    if not is_32_bit:
        return f'run `pip install "smidgen-runtime[litert]"` ({here})'
    if system == "linux" and (3, 9) <= python <= (3, 11) and machine == "armv7l":
        return f'run `pip install "smidgen-runtime[tflite]" "numpy<2"` ({here})'
    return f"no TensorFlow Lite wheel exists for {here}; use a 64-bit system, or Python 3.9-3.11"


def _unknown_backend(name: str) -> str:
    known = ["auto", *ENGINES]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown backend {name!r}: {hint}known backends: {', '.join(known)}"
