"""Which runtimes can open a model file, told from the file alone, before it goes to a device.

Targets: ``litert``, ``tflite-runtime``, ``onnxruntime`` (each also ``NAME==VERSION``),
``tflite-micro`` and ``edgetpu-ready``. The tables and their sources are in ``operator_table``,
``micro_operators``, ``edgetpu`` and here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from smidgen.export.errors import TargetError
from smidgen.export.formats import tflite_file
from smidgen.export.formats.edgetpu import COMPILER_TENSORFLOW, edgetpu_problems
from smidgen.export.formats.micro_operators import MICRO_METHODS
from smidgen.export.formats.onnx_releases import (
    NEWEST_ONNXRUNTIME,
    first_onnxruntime,
    onnx_problems,
)
from smidgen.export.formats.operator_table import LITERT_RELEASES
from smidgen.export.formats.operator_versions import (
    first_litert,
    first_tflite,
    highest_version,
    release,
)
from smidgen.export.formats.problem import Problem
from smidgen.export.recipe import Format

_LAST_TFLITE_RUNTIME = "2.14.0"
_INT16_SINCE = "2.4.0"
"""The first TensorFlow with int16 kernels for the operators of an image classifier (op_version.cc:
CONV_2D 4 and DEPTHWISE_CONV_2D 5 are of 2.3, ADD 3 and MEAN 3 of 2.4). The converter stamps such
operators with the versions of int8, so the file does not say it."""

_TYPES = schema.TensorType
_INT8 = "export int8"
_OTHER_FORMAT = "export the other format, or choose another target"
_MICRO_CASTS = (_TYPES.INT8, _TYPES.INT16, _TYPES.INT32, _TYPES.UINT32, _TYPES.FLOAT32, _TYPES.BOOL)
_WEIGHED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Target:
    """A runtime that a file must run in; ``version`` is empty where the target has none."""

    name: str
    version: str
    model_format: Format

    def __str__(self) -> str:
        return f"{self.name}=={self.version}" if self.version else self.name


TARGETS: dict[str, Target] = {
    "litert": Target("litert", LITERT_RELEASES[-1], "tflite"),
    "tflite-runtime": Target("tflite-runtime", _LAST_TFLITE_RUNTIME, "tflite"),
    "onnxruntime": Target("onnxruntime", NEWEST_ONNXRUNTIME, "onnx"),
    "tflite-micro": Target("tflite-micro", "", "tflite"),
    "edgetpu-ready": Target("edgetpu-ready", "", "tflite"),
}
"""Every target, with the version that is meant where none is given: the newest that was measured,
and the last tflite-runtime there will be."""


def parse_target(text: str) -> Target:
    """``"onnxruntime==1.17"`` as a Target.

    Raises:
        TargetError: no such target, a version where there is none, or one that is not a number.
    """
    name, separator, version = text.partition("==")
    target = TARGETS.get(name)
    if target is None:
        raise TargetError(f"target {text!r}: expected one of {', '.join(TARGETS)}")
    if not separator:
        return target
    if not target.version:
        raise TargetError(f"target {text!r}: {name} has no versions; write {name!r}")
    if not version or not all(part.isdecimal() for part in version.split(".")):
        raise TargetError(f"target {text!r}: expected {name}==NUMBER, such as {target}")
    return Target(name, version, target.model_format)


def check_target(model: bytes, model_format: Format, target: Target | str) -> tuple[Problem, ...]:
    """What keeps a model file (or a Bundle) from running in ``target``; empty: nothing known does.

    Each operator is named once for each reason.

    Raises:
        TargetError: no such target, or a version older than the tables.
        ConversionError: the file is not of ``model_format``.
    """
    wanted = parse_target(target) if isinstance(target, str) else target
    if wanted.model_format != model_format:
        return (
            Problem("", f"a .{model_format} file", f".{wanted.model_format} files", _OTHER_FORMAT),
        )
    if model_format == "onnx":
        problems = onnx_problems(model, wanted.version)
    else:
        problems = _TFLITE_CHECKS[wanted.name](tflite_file.read_model(model), wanted.version)
    return tuple(dict.fromkeys(problems))


def require_target(model: bytes, model_format: Format, target: Target | str) -> None:
    """Raises TargetError with the first of ``check_target``'s problems, and how many more."""
    problems = check_target(model, model_format, target)
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise TargetError(f"the file does not run in {target}: {problems[0]}{more}")


def minimum_runtime(model: bytes, model_format: Format) -> dict[str, str]:
    """The oldest runtimes that know every operator version in the file, for the manifest.

    Keys, as the runtime's engines compare them: ``tflite`` (TensorFlow's and tflite-runtime's
    numbers) and ``litert`` (ai-edge-litert's), or ``onnxruntime``. A key is left out where no
    release is known.
    """
    if model_format == "onnx":
        oldest = {"onnxruntime": first_onnxruntime(model)}
    else:
        parsed = tflite_file.read_model(model)
        used = [(name, version) for name, version, _ in _operator_codes(parsed)]
        floor = [_INT16_SINCE] if _int16_operators(parsed) else []
        oldest = {
            "tflite": _latest([*floor, *(first_tflite(*pair) for pair in used)]),
            "litert": _latest([first_litert(*pair) for pair in used]),
        }
    return {key: version for key, version in oldest.items() if version}


def _litert_problems(model: Any, version: str) -> Iterator[Problem]:
    _check_age("litert", version, LITERT_RELEASES[0])
    yield from _version_problems(model, version, first_litert, _newer_litert)


def _tflite_runtime_problems(model: Any, version: str) -> Iterator[Problem]:
    _check_age("tflite-runtime", version, "1.14.0")
    yield from _version_problems(model, version, first_tflite, _newer_tflite)
    if release(version) < release(_INT16_SINCE):
        for name in _int16_operators(model):
            remedy = f"use {_INT16_SINCE} or newer, or export int8"
            yield Problem(name, "int16 activations", "int8 and float32", remedy)


def _micro_problems(model: Any, _: str) -> Iterator[Problem]:
    """Operators from ``micro_operators``; types as measured with tflite-micro of October 2026.

    It refuses kernels with int8 weights between float activations ("hybrid") and float16 weights;
    its CAST opens with uint8 pixels and fails on the first picture; its DEQUANTIZE knows one scale
    for a tensor and would read others wrongly.
    """
    for name, _version, custom in _operator_codes(model):
        if name not in MICRO_METHODS:
            found = f"custom operator {custom}" if custom else "used"
            yield Problem(name, found, "no kernel", "choose a network without it, or export int8")
    graph = model.subgraphs[0]
    for name, operator in zip(tflite_file.operators(model), graph.operators):
        inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
        kinds = [tensor.type for tensor in inputs]
        if name in _WEIGHED and kinds[:2] == [_TYPES.FLOAT32, _TYPES.INT8]:
            yield Problem(
                name, "float activations, int8 weights", "both int8, or both float32", _INT8
            )
        if name == "CAST" and kinds[0] not in _MICRO_CASTS:
            found = f"from {tflite_file.type_name(kinds[0])}"
            yield Problem(name, found, "int8, int16, int32 and float32", _INT8)
        if name == "DEQUANTIZE" and kinds[0] == _TYPES.FLOAT16:
            yield Problem(name, "float16 weights", "int8, int16 and float32", _INT8)
        if name == "DEQUANTIZE" and _scales(inputs[0]) > 1:
            yield Problem(name, "per-channel weights", "one scale for a tensor", _INT8)


def _edgetpu_ready_problems(model: Any, _: str) -> Iterator[Problem]:
    yield from _version_problems(model, COMPILER_TENSORFLOW, first_tflite, lambda *_: _INT8)
    yield from edgetpu_problems(model)


_TFLITE_CHECKS: dict[str, Callable[[Any, str], Iterator[Problem]]] = {
    "litert": _litert_problems,
    "tflite-runtime": _tflite_runtime_problems,
    "tflite-micro": _micro_problems,
    "edgetpu-ready": _edgetpu_ready_problems,
}


def _version_problems(
    model: Any,
    version: str,
    first: Callable[[str, int], str],
    remedy: Callable[[str, int], str],
) -> Iterator[Problem]:
    """Operator versions whose first release, as ``first`` gives it, is later than ``version``."""
    for name, number, custom in _operator_codes(model):
        if custom:
            found = f"custom operator {custom}"
            yield Problem(name, found, "builtin operators", "convert without custom operators")
            continue
        needed = first(name, number)
        if needed and release(needed) <= release(version):
            continue
        highest = highest_version(name, lambda text: release(text) <= release(version), first)
        has = f"versions up to {highest}" if highest else "no such operator"
        yield Problem(name, f"version {number}", has, remedy(name, number))


def _newer_litert(name: str, number: int) -> str:
    needed = first_litert(name, number)
    return f"use litert {needed} or newer, or {_INT8}" if needed else _INT8


def _newer_tflite(name: str, number: int) -> str:
    needed = first_tflite(name, number)
    if needed and release(needed) <= release(_LAST_TFLITE_RUNTIME):
        return f"use tflite-runtime {needed} or newer, or {_INT8}"
    return _newer_litert(name, number)


def _operator_codes(model: Any) -> list[tuple[str, int, str]]:
    """Name, version and custom name of every operator that the file lists, used or not."""
    return [
        (tflite_file.operator_name(code), int(code.version), (code.customCode or b"").decode())
        for code in model.operatorCodes
    ]


def _int16_operators(model: Any) -> list[str]:
    graph = model.subgraphs[0]
    return [
        name
        for name, operator in zip(tflite_file.operators(model), graph.operators)
        if operator.inputs[0] >= 0 and graph.tensors[operator.inputs[0]].type == _TYPES.INT16
    ]


def _scales(tensor: Any) -> int:
    quantization = tensor.quantization
    return 0 if quantization is None or quantization.scale is None else len(quantization.scale)


def _latest(releases: list[str]) -> str:
    """The newest of them; empty where one of them is not known."""
    return "" if not releases or "" in releases else max(releases, key=release)


def _check_age(name: str, version: str, oldest: str) -> None:
    if release(version) < release(oldest):
        raise TargetError(f"target {name}=={version}: nothing is known of releases before {oldest}")
