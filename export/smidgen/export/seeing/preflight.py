"""Preflight: what will hurt on which target, before any GPU hour. Needs no images and no weights.

The network is built with random weights (or taken from a Run), its BatchNorms are folded as export
folds them, and its layers are counted and looked up. Sizes are estimates but for files that exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smidgen.export.seeing.evidence import Evidence, evidence_for
from smidgen.export.seeing.targets import (
    TARGET_NAMES,
    TargetName,
    TargetVerdict,
    Traits,
    Word,
    judged,
)
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.schema import as_mapping
from smidgen.train.models.backbones import BACKBONES, BackboneName
from smidgen.train.recipe import ModelRecipe

if TYPE_CHECKING:
    from smidgen.export.seeing.anatomy import Anatomy
    from smidgen.train.run import Run

_LARGEST_LITE = 4
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Subject:
    """The network that is looked at: ``network`` as trained, normalised floats to logits."""

    name: str
    backbone: BackboneName
    image_size: int
    classes: int
    network: Any
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class MeasuredFile:
    """A Bundle that exists; ``drop_points`` and ``verdict`` are its gate's, None where none ran."""

    file: str
    scheme: str
    file_bytes: int
    verdict: str | None
    drop_points: float | None


@dataclass(frozen=True)
class Int8Expectation:
    """What int8 will do to the accuracy, with what is known to support it."""

    verdict: Word
    why: str
    instead: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Preflight:
    """All that preflight found. Sizes in bytes; ``peak`` is activation memory, for one image.

    ``parameters`` are trainable ones with batch norms, as papers count. ``parts`` counts what often
    hurts. ``operators`` are those of the int8 TFLite file. ``targets`` in the order asked for.
    """

    name: str
    backbone: str
    image_size: int
    classes: int
    parameters: int
    multiply_adds: int
    float32_bytes: int
    int8_bytes: int
    int8_peak_bytes: int
    float32_peak_bytes: int
    arena_bytes: int
    parts: dict[str, int]
    operators: dict[str, int]
    int8: Int8Expectation
    targets: tuple[TargetVerdict, ...]
    files: tuple[MeasuredFile, ...] = field(default=())

    def as_mapping(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        mapping: dict[str, Any] = as_mapping(self)
        return {**mapping, "parts": dict(self.parts), "operators": dict(self.operators)}


def of_backbone(backbone: BackboneName, image_size: int | None, classes: int) -> Subject:
    """The network of a name, with random weights and a linear head.

    Args:
        backbone: a key of ``smidgen.train.models.backbones.BACKBONES``.
        image_size: side of the input in pixels; None: what its weights were trained with.
        classes: outputs.

    Raises:
        SchemaError: too small an image for the network.
    """
    from smidgen.export.tensorflow_backend import captured_output

    size = image_size or BACKBONES[backbone].image_size
    with captured_output():
        from smidgen.train.models.network import build

        network = build(ModelRecipe(backbone=backbone, weights="none"), classes, size)
    return Subject(backbone, backbone, size, classes, network)


def of_run(run: Run, files: Sequence[Path] = ()) -> Subject:
    """The trained network of a Run, with the Bundles that were made of it.

    Raises:
        NotARun: the Run is not finished.
        WeightsMissing, WeightsMismatch: its model cannot be loaded.
    """
    from smidgen.export.tensorflow_backend import captured_output

    with captured_output():
        from smidgen.train.models.weights import load_network

        network = load_network(run.model_path)
    size, classes = int(network.input_shape[1]), int(network.output_shape[-1])
    return Subject(run.name, run.recipe.model.backbone, size, classes, network, tuple(files))


def preflight(subject: Subject, targets: Sequence[TargetName] = TARGET_NAMES) -> Preflight:
    """Look ``subject`` over for ``targets``.

    Raises:
        FoldError: not a functional Keras model.
        BundleError: one of its files is damaged.
    """
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.pruning.cost import cost_of
    from smidgen.export.seeing.anatomy import anatomy_of

    folded = fold_batch_norms(subject.network).model
    anatomy, cost = anatomy_of(folded), cost_of(folded)
    channels = sum(kernel.width_out for kernel in cost.kernels)
    lite = lite_of(subject.backbone)
    traits = Traits(anatomy, subject.image_size, channels, cost.int8_bytes, lite)
    return Preflight(
        name=subject.name,
        backbone=subject.backbone,
        image_size=subject.image_size,
        classes=subject.classes,
        parameters=cost_of(subject.network).parameters,
        multiply_adds=cost.multiply_adds,
        float32_bytes=_FLOAT_BYTES * int(folded.count_params()),
        int8_bytes=cost.int8_bytes,
        int8_peak_bytes=anatomy.peak_numbers,
        float32_peak_bytes=_FLOAT_BYTES * anatomy.peak_numbers,
        arena_bytes=traits.arena_bytes,
        parts=_parts(anatomy),
        operators=anatomy.counts,
        int8=int8_expectation(subject.backbone, anatomy),
        targets=tuple(judged(target, traits) for target in targets),
        files=tuple(map(_measured, subject.files)),
    )


def int8_expectation(backbone: str, anatomy: Anatomy) -> Int8Expectation:
    """What int8 will do to the accuracy of a network of these parts."""
    evidence = evidence_for(backbone)
    lite = lite_of(backbone)
    gated = bool(anatomy.squeeze_excite)
    curved = bool(anatomy.swish or anatomy.hard_swish)
    if gated or curved:
        parts = " and ".join(
            name for name, found in (("squeeze-excite", gated), ("swish", curved)) if found
        )
        why = (
            f"{parts} give activations of wide, uneven ranges: post-training int8 costs from "
            "nothing to several points, and naive ranges destroy the answers"
        )
        instead = (
            f"{lite}, made for int8; or keep float16; else calibrate on 200 or more images, train "
            "with int8's rounding (qat.epochs = 2), and let the gate decide"
        )
        return Int8Expectation("costs", why, instead, evidence)
    why = "no squeeze-excite, no swish: post-training int8 with a scale for each channel holds"
    losses = [item.drop_points for item in evidence if item.method == "post-training"]
    if losses:
        why += f" (published losses {min(losses):.1f} to {max(losses):.1f} points)"
    return Int8Expectation("fine", why, "", evidence)


def lite_of(backbone: str) -> str:
    """The EfficientNet-Lite to take in place of ``backbone``: the one of its number, at most 4."""
    number = backbone[-1]
    is_numbered = backbone.startswith("efficientnet") and number.isdigit()
    return f"efficientnet-lite{min(int(number), _LARGEST_LITE) if is_numbered else 0}"


def _parts(anatomy: Anatomy) -> dict[str, int]:
    return {
        "squeeze_excite": len(anatomy.squeeze_excite),
        "swish": len(anatomy.swish),
        "hard_swish": len(anatomy.hard_swish),
        "lone_batch_norms": len(anatomy.lone_batch_norms),
        "unknown_layers": len(anatomy.unknown),
    }


def _measured(path: Path) -> MeasuredFile:
    bundle = Bundle.open(path)
    verdict = bundle.manifest.verdict
    return MeasuredFile(
        path.name,
        bundle.manifest.scheme,
        bundle.file_bytes,
        verdict.verdict if verdict else None,
        verdict.drop_points if verdict else None,
    )
