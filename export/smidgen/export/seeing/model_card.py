"""The facts of a model card, and writing it: ``model_card.md`` and ``model_card.json``.

A card is a pure function of the Bundles' manifests, of what export reported, and of the Run. So the
same export gives the same card. Its sections are those of Mitchell et al. 2019 (arXiv:1810.03993).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smidgen.export.result import ExportResult, Failure
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.manifest import Manifest
from smidgen.runtime.schema import as_mapping

if TYPE_CHECKING:
    from smidgen.train.run import Run
    from smidgen.train.seeing.evaluation import Evaluation


@dataclass(frozen=True)
class CardFile:
    """One Bundle; ``zipped_bytes`` is its size as a gzip file."""

    file: str
    passed: bool
    file_bytes: int
    zipped_bytes: int
    file_sha256: str
    manifest: Manifest


@dataclass(frozen=True)
class ClassImages:
    """How many images of a class there were to train on and to test on."""

    label: str
    train: int
    test: int


@dataclass(frozen=True)
class TrainingFacts:
    """What a Run says of itself. ``settings`` is a line for each table of its recipe."""

    run: str
    task: str
    images: dict[str, int]
    skipped: int
    classes: tuple[ClassImages, ...]
    epochs: int
    best_validation_percent: float
    test: Evaluation
    machine: str
    start_weights_sha256: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class ModelCard:
    """Everything that stands in a card. ``training`` is None where the model came without a Run."""

    files: tuple[CardFile, ...]
    failures: tuple[Failure, ...] = ()
    training: TrainingFacts | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        """Of the first file: what all files of one export share."""
        return self.files[0].manifest

    def as_mapping(self) -> dict[str, Any]:
        """Plain values, for JSON; without the golden samples' pictures."""
        shared = self.manifest
        training = None if self.training is None else as_mapping(self.training)
        if training is not None and self.training is not None:
            training["images"] = dict(self.training.images)
        return {
            "backbone": shared.provenance.backbone,
            "labels": list(shared.labels),
            "preprocessing": as_mapping(shared.preprocessing),
            "provenance": {**as_mapping(shared.provenance), "passes": None},
            "files": [_plain(file) for file in self.files],
            "failures": [as_mapping(failure) for failure in self.failures],
            "training": training,
            "versions": dict(self.versions),
        }


def model_card(result: ExportResult, training: TrainingFacts | None = None) -> ModelCard | None:
    """The card of an export; None where no file was made.

    Raises:
        BundleError: a file was damaged since.
    """
    if not result.bundles:
        return None
    files = []
    for made in result.bundles:
        bundle = Bundle.open(made.path)
        files.append(
            CardFile(
                made.file,
                made.passed,
                made.file_bytes,
                made.gzip_bytes,
                made.file_sha256,
                bundle.manifest,
            )
        )
    return ModelCard(tuple(files), result.failures, training, result.versions)


def training_facts(run: Run) -> TrainingFacts:
    """What the card says of a finished Run. Raises NotARun."""
    dataset, provenance, recipe = run.dataset(), run.provenance, run.recipe
    counts = zip(dataset.labels, dataset.counts("train"), dataset.counts("test"), strict=True)
    return TrainingFacts(
        run=run.name,
        task=dataset.task,
        images={
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        skipped=len(dataset.skipped),
        classes=tuple(ClassImages(label, train, test) for label, train, test in counts),
        epochs=len(run.metrics),
        best_validation_percent=100 * max(epoch.val_top1 for epoch in run.metrics),
        test=run.test_metrics,
        machine=str(provenance.get("machine", "")),
        start_weights_sha256=str(provenance.get("start_weights_sha256") or ""),
        settings=_settings(recipe.to_mapping()),
    )


def _settings(recipe: dict[str, Any]) -> tuple[str, ...]:
    """``table: key value, ...``; a folder's place on the machine does not belong into a card."""
    lines = []
    for table, settings in recipe.items():
        shown = [f"{key} {_value(value)}" for key, value in settings.items() if key != "folder"]
        lines.append(f"{table}: {', '.join(shown)}")
    return tuple(lines)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return (Path(value).name if "/" in value else value) or '""'
    if isinstance(value, (list, tuple)):
        return "/".join(map(_value, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _plain(file: CardFile) -> dict[str, Any]:
    manifest = as_mapping(file.manifest)
    wanted = (
        *("name", "model_format", "scheme", "input", "output", "minimum_runtime", "verdict"),
        *("temperature", "abstain_below"),
    )
    return {
        "file": file.file,
        "passed": file.passed,
        "file_bytes": file.file_bytes,
        "zipped_bytes": file.zipped_bytes,
        "file_sha256": file.file_sha256,
        "calibration_images": file.manifest.provenance.calibration_images,
        "calibration_sha256": file.manifest.provenance.calibration_sha256,
        "passes": manifest["provenance"]["passes"],
        **{name: manifest[name] for name in wanted},
    }
