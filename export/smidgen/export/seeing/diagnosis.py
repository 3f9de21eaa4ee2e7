"""``debug``: one int8 TFLite Bundle against the float network that it was made from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomllib

from smidgen.export.calibration import choose
from smidgen.export.errors import SourceError
from smidgen.export.progress import Progress, stage
from smidgen.export.recipe import ExportPlan
from smidgen.export.seeing.layer_noise import LayerReport, layer_reports
from smidgen.export.seeing.remedies import Remedy, logits_db, remedies_for, worst
from smidgen.export.source import FloatModel
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.manifest import Manifest, PassRecord
from smidgen.runtime.schema import as_mapping, build
from smidgen.runtime.streams import without_chatter

IMAGES = 32
"""As many as are enough for stable ratios: means over all values of a layer."""

_CHANGING = ("channels", "sparsity", "clustering")


@dataclass(frozen=True)
class Diagnosis:
    """What debug found. ``worst``: names of the layers that add the most noise, worst first."""

    file: str
    source: str
    images: int
    logits_db: float
    layers: tuple[LayerReport, ...]
    worst: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    per_tensor_kernels: tuple[str, ...] = field(default=())

    def as_mapping(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        mapping: dict[str, Any] = as_mapping(self)
        return mapping


def diagnose(
    source: FloatModel, path: Path, progress: Progress, *, images: int = IMAGES
) -> Diagnosis:
    """Run the Bundle and its float twin on calibration images, and compare layer by layer.

    Args:
        source: the float model that the Bundle was exported from.
        path: an int8 ``.tflite`` Bundle.
        progress: is told what takes time.
        images: how many calibration images.

    Raises:
        BundleError: not a whole Bundle.
        SourceError: not int8 TFLite, of another model, or its pruned network was not kept.
        CalibrationError: too few images.
        PairingError: the file is not of this network.
    """
    bundle = Bundle.open(path)
    _check(bundle.manifest, source, path)
    from smidgen.export.graphs.fold import fold_batch_norms

    chosen = choose(source.calibration_pool, source.held_out, images, source.preprocessing)
    seconds: dict[str, float] = {}
    with stage(progress, "load the float network", seconds):
        network = _network(source, bundle.manifest, path.parent, progress)
        folded = fold_batch_norms(network).model
    twin = _twin(folded, source, bundle.manifest, progress)
    with stage(progress, "run both files", seconds), without_chatter():
        report = layer_reports(twin, bundle.data, list(chosen.pixels()))
    return Diagnosis(
        file=path.name,
        source=source.name,
        images=len(chosen),
        logits_db=logits_db(report.layers),
        layers=report.layers,
        worst=tuple(dict.fromkeys(layer.layer for layer in worst(report.layers))),
        remedies=remedies_for(report, bundle.manifest.verdict),
        per_tensor_kernels=report.per_tensor_kernels,
    )


def _check(manifest: Manifest, source: FloatModel, path: Path) -> None:
    if manifest.scheme != "int8":
        raise SourceError(f"{path} is {manifest.scheme}: debug looks at int8 files; name one")
    if manifest.model_format != "tflite":
        raise SourceError(
            f"{path} is ONNX, written from the integers of the TFLite file: debug looks at the "
            ".tflite file of the same export; name that one"
        )
    if manifest.provenance.weights_sha256 != source.weights_sha256:
        raise SourceError(
            f"{path} was exported from other weights than {source.source} has now: name the Run "
            f"that it was made from ({manifest.provenance.source}), or export again"
        )
    if any(record.name == "qat" for record in manifest.provenance.passes):
        raise SourceError(
            f"{path} comes from quantization-aware training, whose float network is not kept: "
            "debug a file that was quantized after training"
        )


def _network(source: FloatModel, manifest: Manifest, folder: Path, progress: Progress) -> Any:
    """The float network that was quantized: the source's, or the one that passes made of it."""
    names = [record.name for record in manifest.provenance.passes if record.name in _CHANGING]
    if not names:
        return source.load()
    from smidgen.export.compression import PASSES_FOLDER, pass_key
    from smidgen.export.formats.conversion import Converter
    from smidgen.train.models.weights import load_network

    plan = plan_of(manifest)
    with tempfile.TemporaryDirectory() as work:
        converter = Converter(source, plan, Path(work), progress, {})
        key = pass_key(converter.workshop, plan, names)
    kept = folder / PASSES_FOLDER / f"{names[-1]}-{key}.keras"
    if not kept.is_file():
        raise SourceError(
            f"the network behind {manifest.name} ({', '.join(names)}) is not in {kept.parent}: "
            "export again with the same recipe, then debug"
        )
    return load_network(kept)


def _twin(folded: Any, source: FloatModel, manifest: Manifest, progress: Progress) -> bytes:
    """The float file with the kernels that were quantized; equalized ones are made once more."""
    from smidgen.export.quantization.quantizer import quantize
    from smidgen.export.quantization.twins import float_twin

    facts = {key: value for record in manifest.provenance.passes for key, value in _facts(record)}
    if not facts.get("equalization", "off")[0].isdigit():  # else: how many groups of channels
        return float_twin(folded, source.normalization)
    plan = plan_of(manifest)
    count = plan.export.calibration_images
    chosen = choose(source.calibration_pool, source.held_out, count, source.preprocessing)
    with stage(progress, "equalize as the export did", {}, len(chosen)):
        settings = replace(plan.quantization, mixed=0, float_layers=())  # kernels alone matter
        made = quantize(folded, source.normalization, chosen, settings, progress.advance)
    return made.float_twin


def _facts(record: PassRecord) -> Iterable[tuple[str, str]]:
    return record.facts.items() if record.name == "quantize" else ()


def plan_of(manifest: Manifest) -> ExportPlan:
    """The plan that made a Bundle, from the recipe inside it. Raises SchemaError."""
    tables = tomllib.loads(manifest.provenance.recipe_toml)
    known = ExportPlan.__dataclass_fields__
    return build(ExportPlan, {name: tables[name] for name in known if name in tables})
