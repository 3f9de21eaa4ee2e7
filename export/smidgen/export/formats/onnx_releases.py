"""Which ONNX Runtime releases open an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from smidgen.export.errors import ConversionError, TargetError
from smidgen.export.formats.operator_versions import release
from smidgen.export.formats.problem import Problem

ONNXRUNTIME_RELEASES: tuple[tuple[str, int, int], ...] = (
    ("1.7", 13, 7),
    ("1.8", 14, 7),
    ("1.9", 15, 7),
    ("1.12", 17, 8),
    ("1.14", 18, 8),
    ("1.15", 18, 9),
    ("1.16", 19, 9),
    ("1.17", 20, 9),
    ("1.18", 21, 10),
    ("1.21", 22, 10),
    ("1.23", 23, 11),
    ("1.24", 25, 13),
    ("1.25", 26, 13),
    ("1.32", 28, 14),
)
"""First release, then the highest opset and IR version that it opens.

Measured, November 2026, for the last patch of each of 1.15 to 1.32: a file stamped higher is
refused. Older ones are from the page "ONNX Runtime compatibility" (onnxruntime.ai/docs/reference),
the lower where copies of it differ.
"""

NEWEST_ONNXRUNTIME = ONNXRUNTIME_RELEASES[-1][0]
_OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


def first_onnxruntime(data: bytes) -> str:
    """The first release that opens a file; empty: none known. Raises ConversionError."""
    model = _read(data)
    for first, opset, ir_version in ONNXRUNTIME_RELEASES:
        if _opset(model) <= opset and model.ir_version <= ir_version:
            return first
    return ""


def onnx_problems(data: bytes, version: str) -> Iterator[Problem]:
    """What keeps a file from opening in ONNX Runtime ``version``.

    An operator that changed after the release's opset is named; without one, the file's stamp is.

    Raises:
        TargetError: a release before the table's first.
        ConversionError: not an ONNX file.
    """
    known = [row for row in ONNXRUNTIME_RELEASES if release(row[0]) <= release(version)]
    if not known:
        raise TargetError(
            f"target onnxruntime=={version}: nothing is known of releases before "
            f"{ONNXRUNTIME_RELEASES[0][0]}"
        )
    _, highest, highest_ir = known[-1]
    model, newer = _read(data), first_onnxruntime(data) or "a later release"
    opset = _opset(model)
    if opset > highest:
        remedy = f"use onnxruntime {newer} or newer, or export with opset {highest}"
        changed = [
            Problem(kind, f"of opset {since}", f"opset {highest}", remedy)
            for kind, since in _since(model, opset)
            if since > highest
        ]
        yield from changed or [Problem("", f"opset {opset}", f"opset {highest}", remedy)]
    if model.ir_version > highest_ir:
        found = f"IR version {model.ir_version}"
        remedy = f"use onnxruntime {newer} or newer, or write IR version {highest_ir}"
        yield Problem("", found, f"IR version {highest_ir}", remedy)
    for node in model.graph.node:
        if node.domain not in _OWN_DOMAINS:
            remedy = "export without custom operators"
            yield Problem(node.op_type, f"domain {node.domain}", "ONNX operators", remedy)


def _read(data: bytes) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ConversionError(f"not an ONNX file ({error}): export again") from error
    if not model.HasField("graph"):
        raise ConversionError("not an ONNX file (no graph in it): export again")
    return model


def _opset(model: onnx.ModelProto) -> int:
    stamps = [
        int(entry.version) for entry in model.opset_import if entry.domain in _OWN_DOMAINS[:2]
    ]
    return max(stamps, default=0)


def _since(model: onnx.ModelProto, opset: int) -> Iterator[tuple[str, int]]:
    """Each kind of operator with the opset in which its present form came."""
    for kind in dict.fromkeys(node.op_type for node in model.graph.node if not node.domain):
        try:
            yield kind, int(onnx.defs.get_schema(kind, opset, "").since_version)
        except onnx.defs.SchemaError:
            yield kind, opset
