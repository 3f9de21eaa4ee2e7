"""What decides a Bundle, as one hash: with the same key nothing is made again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from smidgen.export.pictures import hash_of_hashes
from smidgen.export.recipe import ExportPlan, Format
from smidgen.export.source import FloatModel
from smidgen.export.versions import toolchain_versions
from smidgen.runtime.manifest import Scheme
from smidgen.runtime.schema import as_mapping

_GENERATION = 3
"""Raised when the same inputs give other files than before, so that old ones are made anew."""

_OF_INT8 = ("calibration_images", "ends", "c_header")
"""Settings of [export] that other schemes do not depend on."""


def bundle_key(source: FloatModel, plan: ExportPlan, form: Format, scheme: Scheme) -> str:
    """SHA-256 over everything that decides one Bundle, its verdict and its name."""
    content = [
        _GENERATION,
        form,
        scheme,
        _settings(plan, scheme),
        source.name,
        source.weights_sha256,
        list(source.labels),
        as_mapping(source.preprocessing),
        as_mapping(source.normalization),
        [[picture.sha256, picture.label, picture.turn] for picture in source.held_out],
        hash_of_hashes(source.calibration_pool),
        _decisions(source, plan),
        toolchain_versions(),
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8")).hexdigest()


def _decisions(source: FloatModel, plan: ExportPlan) -> list[Any]:
    """What decides temperature and threshold: without either, the images have no say."""
    wanted = plan.decisions
    if not (wanted.temperature_scaling or wanted.answered_accuracy):
        return []
    pictures = [[picture.sha256, picture.label, picture.turn] for picture in source.validation]
    return [as_mapping(wanted), pictures]


def _settings(plan: ExportPlan, scheme: Scheme) -> dict[str, Any]:
    """The tables of ``plan`` that have a say in a file of ``scheme``; what is off has none."""
    export = as_mapping(plan.export)
    for name in ("formats", "schemes"):
        del export[name]
    is_int8 = scheme in ("int8", "int16x8")
    if not is_int8:
        for name in _OF_INT8:
            del export[name]
    tables = {"export": export}
    for name in plan.passes:
        if name != "qat" or scheme == "int8":
            tables[name] = as_mapping(getattr(plan, name))
    if is_int8:
        tables["quantization"] = as_mapping(plan.quantization)
    return tables
