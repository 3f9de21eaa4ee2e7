"""From one float model to model files: what is shared between them is made once, when needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.export.calibration import Calibration, choose
from smidgen.export.compression import Compressed, compress
from smidgen.export.errors import FoldError, SourceError
from smidgen.export.formats import to_onnx, to_tflite
from smidgen.export.formats.runtimes import minimum_runtime
from smidgen.export.graphs.deploy_graph import INPUT_NAME, OUTPUT_NAME, pixel_code
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.progress import Progress, stage
from smidgen.export.recipe import ExportPlan, Format
from smidgen.export.source import FloatModel
from smidgen.export.tuner import RunTuner
from smidgen.export.workshop import Workshop
from smidgen.runtime.manifest import PassRecord, Scheme, TensorSpec
from smidgen.train.models.backbones import Normalization

_FOLD_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Converted:
    """A model file without manifest, and what the manifest says of it."""

    data: bytes
    input: TensorSpec
    output: TensorSpec
    records: tuple[PassRecord, ...]
    minimum_runtime: dict[str, str]
    calibration_sha256: str = ""
    calibration_images: int = 0


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
        data = self._data(model_format, scheme)
        image, scores = tensor_specs(self.source, model_format, scheme)
        used = self.calibration if scheme == "int8" else None
        return Converted(
            data=data,
            input=image,
            output=scores,
            records=self.compressed.records,
            minimum_runtime=minimum_runtime(data, model_format),
            calibration_sha256=used.sha256 if used else "",
            calibration_images=len(used) if used else 0,
        )

    def _data(self, model_format: Format, scheme: Scheme) -> bytes:
        total = len(self.calibration) if scheme == "int8" else 0
        folded, core = self._folded, self._core if model_format == "onnx" else None
        normalization = self.source.normalization
        with stage(self.progress, f"convert {scheme} .{model_format}", self.seconds, total):
            if model_format == "tflite":
                if scheme == "float32":
                    return to_tflite.to_tflite_float32(folded, normalization)
                return to_tflite.to_tflite_int8(
                    folded, normalization, self.calibration, self.progress.advance
                )
            code = pixel_code(normalization)
            if scheme == "float32":
                return to_onnx.finish(to_onnx.with_float_entry(core, code))
            from smidgen.export.formats.quantize_onnx import quantize_core

            return quantize_core(core, code, self.calibration, self.progress.advance)

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


def tensor_specs(
    source: FloatModel, model_format: Format, scheme: Scheme
) -> tuple[TensorSpec, TensorSpec]:
    """Input and output of a Bundle, as the manifest says them."""
    batch = 1 if model_format == "tflite" else -1
    size = source.preprocessing
    shape = (batch, size.height, size.width, 3)
    image = TensorSpec(INPUT_NAME, shape, "uint8", "NHWC", low=0.0, high=255.0)
    classes = (batch, len(source.labels))
    if model_format == "tflite" and scheme == "int8":
        top = 255 / 256
        return image, TensorSpec(OUTPUT_NAME, classes, "uint8", "NC", 0.0, top, scale=1 / 256)
    return image, TensorSpec(OUTPUT_NAME, classes, "float32", "NC", 0.0, 1.0)


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
