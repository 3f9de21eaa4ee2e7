"""What a Bundle says of itself, and what a line says of a Bundle."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smidgen.export.recipe import ExportPlan, Format
from smidgen.export.source import FloatModel
from smidgen.export.versions import toolchain_versions
from smidgen.runtime.manifest import Manifest, Provenance, Scheme
from smidgen.runtime.schema import as_mapping
from smidgen.train.recipe_toml import dumps

if TYPE_CHECKING:
    from smidgen.export.formats.conversion import Converted


@dataclass(frozen=True)
class Wanted:
    """One file that a plan asks for."""

    source: FloatModel
    plan: ExportPlan
    model_format: Format
    scheme: Scheme

    @property
    def stem(self) -> str:
        """Name of the file without its format."""
        return f"{self.plan.export.name or self.source.name}-{self.scheme}"

    def file(self, *, passed: bool) -> str:
        """Name of the file; one that did not pass its gate has a name that says so."""
        return f"{self.stem}{'' if passed else '.gate-failed'}.{self.model_format}"


def manifest_of(wanted: Wanted, converted: Converted) -> Manifest:
    """The manifest of a converted file, before it was packed and judged.

    Nothing in it depends on when or where it was made: equal inputs give equal bytes.
    """
    source, plan = wanted.source, wanted.plan
    settings = dumps(as_mapping(plan))
    provenance = Provenance(
        created_utc=source.trained_utc,
        backbone=source.backbone,
        source=source.source,
        recipe_toml=f"{source.recipe_toml.rstrip()}\n\n{settings}".lstrip(),
        weights_sha256=source.weights_sha256,
        data_sha256=source.data_sha256,
        calibration_sha256=converted.calibration_sha256,
        calibration_images=converted.calibration_images,
        passes=converted.records,
        commit=source.commit,
        versions={**source.versions, **toolchain_versions(), "machine": platform.machine()},
    )
    return Manifest(
        name=wanted.stem,
        model_format=wanted.model_format,
        scheme=wanted.scheme,
        labels=source.labels,
        preprocessing=source.preprocessing,
        input=converted.input,
        output=converted.output,
        provenance=provenance,
        payload_sha256="",
        minimum_runtime=converted.minimum_runtime,
    )


def summary(path: Path, size: int, manifest: Manifest) -> str:
    """One line: the file, its size, what the gate found and what was fitted."""
    verdict = manifest.verdict
    assert verdict is not None
    if verdict.truth == "labels":
        answers = (
            f"top-1 {verdict.top1_percent:.2f} % (float model "
            f"{verdict.reference_top1_percent:.2f} %), drop {verdict.drop_points:.2f} points"
        )
    else:  # no labels: the float model's answers are the truth
        answers = (
            f"the float model's answer on {verdict.top1_percent:.2f} %, drop "
            f"{verdict.drop_points:.2f} points"
        )
    line = (
        f"{path.name}: {size / 1e6:.2f} MB, {answers} "
        f"[{verdict.drop_low_points:.2f}, {verdict.drop_high_points:.2f}], "
        f"{verdict.changed_answers} of {verdict.images} answers changed, largest difference of a "
        f"probability {verdict.max_score_difference:.1g}: {verdict.verdict}"
    )
    if verdict.verdict == "undecided":
        needed = verdict.images_to_decide
        line += f" (about {needed} images would decide)" if needed else " (drop at the limit)"
    return line + _decisions(manifest)


def _decisions(manifest: Manifest) -> str:
    """``; temperature 1.31, abstains below 0.62``; nothing where neither was fitted."""
    line = "" if manifest.temperature == 1.0 else f"; temperature {manifest.temperature:.3g}"
    if manifest.abstain_below > 0:
        line += f"{',' if line else ';'} abstains below {manifest.abstain_below:.3g}"
    return line
