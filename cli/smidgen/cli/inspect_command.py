"""``smidgen inspect``: show what a Bundle is and what it says about itself."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smidgen.cli import layout
from smidgen.cli.model_ops import op_counts
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classifier
from smidgen.runtime.manifest import Manifest, TensorSpec, Verdict
from smidgen.runtime.schema import as_mapping
from smidgen.runtime.selftest import selftest
from smidgen.runtime.streams import without_chatter

SUMMARY = "show what a model file holds: manifest, size, operators, hashes"
DESCRIPTION = """\
Check a Bundle's hash and show its size, operators, labels, pre-processing, verdict and origin.
MODEL is a .tflite or .onnx file, or a Run folder: then the smallest Bundle that passed its gate."""
EXAMPLES = """\
  smidgen inspect photos-int8.tflite
  smidgen inspect runs/photos --selftest
  smidgen inspect photos-int8.onnx --json"""

_LABELS_SHOWN = 10
_BULKY = ("image_png", "tensor_probe")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and how much of it to show."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite or .onnx Bundle, or a Run folder")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    parser.add_argument(
        "--selftest", action="store_true", help="also run the golden sample inside the file"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Show the Bundle; a self-test that fails ends in SelfTestFailed."""
    path = layout.best_bundle(arguments.model)
    bundle = Bundle.open(path)
    facts = describe(bundle)
    if arguments.selftest:
        with without_chatter():
            classifier = Classifier(path)
        with classifier:
            facts["selftest"] = as_mapping(selftest(classifier))
    if arguments.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(bundle, facts)))
    return 0


def describe(bundle: Bundle) -> dict[str, Any]:
    """The Bundle as plain values; the golden picture's bytes are left out.

    Raises ModuleNotFoundError or EngineFailed where the operators cannot be read.
    """
    manifest = as_mapping(bundle.manifest)
    golden = manifest.get("golden")
    if golden is not None:
        manifest["golden"] = {key: item for key, item in golden.items() if key not in _BULKY}
    return {
        "path": str(bundle.path),
        "file_bytes": bundle.file_bytes,
        "file_sha256": bundle.file_sha256,
        "operators": op_counts(bundle),
        "manifest": manifest,
    }


def _lines(bundle: Bundle, facts: Mapping[str, Any]) -> Iterator[str]:
    manifest, ops = bundle.manifest, facts["operators"]
    pairs = [
        ("file", str(Path(bundle.path))),
        ("size", f"{bundle.file_bytes:,} bytes"),
        ("sha256", bundle.file_sha256),
        ("payload", f"{manifest.payload_sha256} (checked)"),
        ("model", f"{manifest.name}, {manifest.model_format}, {manifest.scheme}"),
        ("labels", _labels(manifest)),
        ("pixels", _pixels(manifest)),
        ("input", _tensor(manifest.input)),
        ("output", _tensor(manifest.output)),
        ("verdict", _verdict(manifest.verdict)),
        ("decisions", _decisions(manifest)),
        ("golden", "one sample" if manifest.golden else "none"),
        *_selftest(facts.get("selftest", {})),
        ("runtime", ", ".join(f"{k} {v}" for k, v in manifest.minimum_runtime.items()) or "any"),
        *_origin(manifest),
        ("operators", f"{sum(ops.values())} in all"),
    ]
    for name, value in pairs:
        yield f"{name:<12}{value}"
    for name, count in ops.items():
        yield f"{count:>11} {name}"


def _labels(manifest: Manifest) -> str:
    shown = ", ".join(manifest.labels[:_LABELS_SHOWN])
    more = len(manifest.labels) - _LABELS_SHOWN
    return f"{len(manifest.labels)}: {shown}" + (f", and {more} more" if more > 0 else "")


def _pixels(manifest: Manifest) -> str:
    how = manifest.preprocessing
    place = "whole picture"
    if how.fit == "crop":
        place = f"centred square of {how.crop_fraction:g} of the shorter side"
    return f"{place}, {how.resample} to {how.width} x {how.height} RGB"


def _tensor(spec: TensorSpec) -> str:
    shape = " x ".join("any" if size < 0 else str(size) for size in spec.shape)
    scale = (
        ""
        if (spec.scale, spec.zero_point) == (1.0, 0)
        else (f", scale {spec.scale:.8g}, zero point {spec.zero_point}")
    )
    return f"{spec.name}: {spec.dtype} {spec.layout} {shape}, {spec.low:g} to {spec.high:g}{scale}"


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "none: the gate did not run on this file"
    interval = f"[{verdict.drop_low_points:.2f}, {verdict.drop_high_points:.2f}]"
    return (
        f"{verdict.verdict}: top-1 {verdict.top1_percent:.2f} %, drop {verdict.drop_points:.2f} "
        f"points {interval}, allowed {verdict.max_drop_points:g}; "
        f"{verdict.changed_answers} of {verdict.images} answers changed"
    )


def _decisions(manifest: Manifest) -> str:
    below = f"abstains below {manifest.abstain_below:.4g}"
    return (
        f"temperature {manifest.temperature:g}, "
        f"{below if manifest.abstain_below else 'never abstains'}"
    )


def _selftest(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line for each stage; none where it was not asked for."""
    stages = [(stage["name"], stage["detail"]) for stage in report.get("stages", ())]
    return [("selftest", f"{name} passed: {detail}") for name, detail in stages]


def _trained(utc: str) -> str:
    return f", trained {utc}" if utc else ""


def _origin(manifest: Manifest) -> list[tuple[str, str]]:
    origin = manifest.provenance
    return [
        ("made from", f"{origin.source} ({origin.backbone}){_trained(origin.created_utc)}"),
        ("weights", origin.weights_sha256),
        ("data", origin.data_sha256),
        ("calibration", f"{origin.calibration_images} images {origin.calibration_sha256}".strip()),
        ("commit", origin.commit or "unknown"),
        ("versions", ", ".join(f"{k} {v}" for k, v in origin.versions.items()) or "unknown"),
    ]
