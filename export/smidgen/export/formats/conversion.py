"""From one float model to model files: what is shared between them is made once, when needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.export.calibration import Calibration, choose
from smidgen.export.compression import Compressed, compress
from smidgen.export.errors import FoldError, SourceError
from smidgen.export.formats import to_onnx
from smidgen.export.formats.integers import Integers, Network, Store, post_training
from smidgen.export.formats.onnx_variants import choose_variant, variants_of
from smidgen.export.formats.onnx_weights import to_onnx_scheme
from smidgen.export.formats.runtimes import minimum_runtime
from smidgen.export.formats.tflite_ends import end_specs, with_ends
from smidgen.export.formats.tflite_schemes import (
    NOTES,
    to_tflite_dynamic,
    to_tflite_float16,
    to_tflite_int16x8,
    to_tflite_weights_int8,
)
from smidgen.export.formats.to_tflite import to_tflite_float32
from smidgen.export.graphs.deploy_graph import INPUT_NAME, OUTPUT_NAME, pixel_code
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.progress import Progress, stage
from smidgen.export.recipe import ExportPlan, Format
from smidgen.export.source import ChannelNormalization, FloatModel, weights_sha256
from smidgen.export.tuner import RunTuner
from smidgen.export.workshop import Workshop
from smidgen.runtime.manifest import PassRecord, Scheme, TensorSpec
from smidgen.runtime.schema import as_mapping
from smidgen.train.models.backbones import Normalization

_FOLD_TOLERANCE = 1e-4

_FLOAT_TFLITE: dict[Scheme, Callable[[Any, ChannelNormalization], bytes]] = {
    "float32": to_tflite_float32,
    "float16": to_tflite_float16,
    "weights-int8": to_tflite_weights_int8,
    "dynamic": to_tflite_dynamic,
}


@dataclass(frozen=True)
class Converted:
    """A model file without manifest, and what the manifest says of it.

    ``facts`` are of this machine (what was measured), and stay out of the manifest.
    """

    data: bytes
    input: TensorSpec
    output: TensorSpec
    records: tuple[PassRecord, ...]
    minimum_runtime: dict[str, str]
    calibration_sha256: str = ""
    calibration_images: int = 0
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Converter:
    """Makes the model files of ``source``; ``seconds`` collects the duration of each step.

    ``passes``: the folder where changed networks are kept.
    """

    source: FloatModel
    plan: ExportPlan
    passes: Path
    progress: Progress
    seconds: dict[str, float]

    @cached_property
    def model(self) -> Any:
        """The float model as it came: normalised floats to logits."""
        with stage(self.progress, "load the float model", self.seconds):
            return self.source.load()

    @cached_property
    def calibration(self) -> Calibration:
        """The calibration images. Raises CalibrationError."""
        return choose(
            self.source.calibration_pool,
            self.source.held_out,
            self.plan.export.calibration_images,
            self.source.preprocessing,
        )

    @cached_property
    def compressed(self) -> Compressed:
        """The network after the plan's passes. Raises ExportError, TrainError."""
        if not self.plan.passes:
            return Compressed(self.model, ())
        return compress(lambda: self.model, self.plan, self.workshop, self.passes)

    @cached_property
    def workshop(self) -> Workshop:
        """What passes work with. Raises SourceError where there is nothing to tune on."""
        source = self.source
        if source.training is None:
            raise SourceError(
                f"{' and '.join(self.plan.passes)} need training images to tune the network on, "
                f"and {source.source} has none: export a Run, or --model with --images"
            )
        tuner = RunTuner(
            source.training.recipe,
            source.training.dataset,
            Normalization(source.normalization.mean, source.normalization.std),
            self.passes / "tuning",
            self.progress,
        )
        return Workshop(
            source, self.calibration, tuner, self.progress, self.passes / "tuning", self.seconds
        )

    def convert(self, model_format: Format, scheme: Scheme) -> Converted:
        """One model file without manifest. Raises ExportError, TrainError."""
        note = NOTES.get(scheme)
        if note and model_format == "tflite":
            self.progress.note(note)
        make = self._tflite if model_format == "tflite" else self._onnx
        data, facts = make(scheme)
        image, scores = self._ends(data, model_format)
        is_calibrated = scheme in ("int8", "int16x8")
        used = self.calibration if is_calibrated else None
        records = self.compressed.records
        if scheme == "int8":
            records = (*records, self.integers.record)
        return Converted(
            data=data,
            input=image,
            output=scores,
            records=records,
            minimum_runtime=minimum_runtime(data, model_format),
            calibration_sha256=used.sha256 if used else "",
            calibration_images=len(used) if used else 0,
            facts=facts,
        )

    @cached_property
    def integers(self) -> Integers:
        """The int8 TFLite file that both formats are made of. Raises ExportError, TrainError."""
        plan, calibration = self.plan, self.calibration
        network = self.compressed.network
        content = [
            weights_sha256(network),
            as_mapping(self.source.normalization),
            calibration.sha256,
            as_mapping(plan.quantization),
            [as_mapping(plan.qat), list(plan.passes)] if plan.qat.epochs else [],
        ]
        make = self._trained_integers if plan.qat.epochs else self._post_training_integers
        found = Store(self.passes, self.progress).get(content, make)
        if plan.qat.epochs:
            shutil.rmtree(self.workshop.work, ignore_errors=True)  # its checkpoints
        return found

    def _post_training_integers(self) -> Integers:
        folded = Network(self._folded, self.source.normalization)
        with stage(self.progress, "quantize to int8", self.seconds, len(self.calibration)):
            return post_training(folded, self.calibration, self.plan.quantization, self.progress)

    def _trained_integers(self) -> Integers:
        from smidgen.export.guest.quantization_aware import quantization_aware

        with stage(self.progress, "quantization-aware training", self.seconds):
            made = quantization_aware(
                self.compressed.network, self.plan.qat, self.workshop, self.plan.quantization
            )
        return Integers(made.tflite, PassRecord("qat", made.facts))

    def _tflite(self, scheme: Scheme) -> tuple[bytes, dict[str, str]]:
        if scheme == "int8":
            return with_ends(self.integers.data, self.plan.export.ends), {}
        folded, normalization = self._folded, self.source.normalization
        total = len(self.calibration) if scheme == "int16x8" else 0
        with stage(self.progress, f"convert {scheme} .tflite", self.seconds, total):
            if scheme == "int16x8":
                return to_tflite_int16x8(
                    folded, normalization, self.calibration, self.progress.advance
                ), {}
            return _FLOAT_TFLITE[scheme](folded, normalization), {}

    def _onnx(self, scheme: Scheme) -> tuple[bytes, dict[str, str]]:
        if scheme != "int8":
            with stage(self.progress, f"convert {scheme} .onnx", self.seconds):
                return to_onnx_scheme(self._float_onnx, scheme), {}
        variants = variants_of([("", self.integers.data)])
        wanted = self.plan.quantization.onnx_activations
        if wanted != "measured":
            index = ("u8", "s8").index(wanted)
            return variants[index].data, {"activations": wanted}
        with stage(self.progress, "time the int8 .onnx variants", self.seconds):
            choice = choose_variant(variants, self._float_onnx)
        if choice.advice:
            self.progress.note(choice.facts["advice"])
        return choice.variant.data, choice.facts

    def _ends(self, data: bytes, model_format: Format) -> tuple[TensorSpec, TensorSpec]:
        """Input and output, as the manifest says them."""
        if model_format == "tflite":
            return end_specs(data)
        size, classes = self.source.preprocessing, len(self.source.labels)
        shape = (-1, size.height, size.width, 3)
        image = TensorSpec(INPUT_NAME, shape, "uint8", "NHWC", low=0.0, high=255.0)
        return image, TensorSpec(OUTPUT_NAME, (-1, classes), "float32", "NC", 0.0, 1.0)

    @cached_property
    def _float_onnx(self) -> bytes:
        core, code = self._core, pixel_code(self.source.normalization)
        return to_onnx.finish(to_onnx.with_float_entry(core, code))

    @cached_property
    def _folded(self) -> Any:
        model = self.compressed.network
        with stage(self.progress, "fold batch normalisation", self.seconds):
            folded = fold_batch_norms(model)
            _check_fold(model, folded.model)
        for line in folded.kept:
            self.progress.note(f"kept as a layer of its own: BatchNorm {line}")
        return folded.model

    @cached_property
    def _core(self) -> Any:
        folded = self._folded
        with stage(self.progress, "convert to an ONNX graph", self.seconds):
            return to_onnx.to_onnx_core(folded, self.source.normalization)


def _check_fold(model: Any, folded: Any) -> None:
    """Compare logits on noise. Raises FoldError where they differ by more than float rounding."""
    shape = (2, *model.input.shape[1:])
    pixels = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    expected, got = (np.asarray(m(pixels, training=False)) for m in (model, folded))
    worst, size = float(np.abs(expected - got).max()), max(1.0, float(np.abs(expected).max()))
    if not worst <= _FOLD_TOLERANCE * size:
        raise FoldError(
            f"folding BatchNorm changed the outputs by {worst:.2g} (allowed "
            f"{_FOLD_TOLERANCE * size:.2g}): a variance may be near zero; train longer, or report"
        )
