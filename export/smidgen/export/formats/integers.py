"""The int8 TFLite file: made once, by post-training quantization or by training, kept by content.

Both formats come from it: the ``.tflite`` with the ends that are asked for, and the ``.onnx`` with
the same integers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smidgen.export.calibration import Calibration
from smidgen.export.progress import Progress
from smidgen.export.recipe import QuantizationRecipe
from smidgen.export.source import ChannelNormalization
from smidgen.export.versions import toolchain_versions
from smidgen.runtime.errors import SchemaError
from smidgen.runtime.files import write_bytes, write_text
from smidgen.runtime.manifest import PassRecord
from smidgen.runtime.schema import as_mapping, build

_GENERATION = 1
"""Raised when the quantizer gives other integers for the same input than before."""


@dataclass(frozen=True)
class Integers:
    """``data``: ``(1, H, W, 3) uint8`` pixels to ``(1, classes) uint8`` scores with scale 1/256."""

    data: bytes
    record: PassRecord


@dataclass(frozen=True)
class Store:
    """Keeps int8 files in ``folder`` by what decides them."""

    folder: Path
    progress: Progress

    def get(self, content: Any, make: Callable[[], Integers]) -> Integers:
        """The file that ``content`` (plain values) decides; made where it is not there yet.

        Raises:
            OutputError: the folder cannot be written to.
        """
        text = json.dumps([_GENERATION, content, toolchain_versions()], sort_keys=True)
        stem = f"int8-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:16]}"
        path = self.folder / f"{stem}.bin"
        kept = _kept(path)
        if kept is not None:
            return kept
        made = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, made.data)
        note = {
            "record": as_mapping(made.record),
            "sha256": hashlib.sha256(made.data).hexdigest(),
        }
        write_text(path.with_suffix(".json"), json.dumps(note, indent=2) + "\n")
        return made


@dataclass(frozen=True)
class Network:
    """What is quantized: normalised floats to logits, batch norms folded."""

    folded: Any
    normalization: ChannelNormalization


def post_training(
    network: Network,
    calibration: Calibration,
    settings: QuantizationRecipe,
    progress: Progress,
) -> Integers:
    """Quantize after training; where ``settings.mixed`` asks for it, some layers stay float32.

    Raises:
        ConversionError: the converter failed.
    """
    from smidgen.export.quantization.quantizer import quantize

    made = quantize(network.folded, network.normalization, calibration, settings, progress.advance)
    if made.note:
        progress.note(f"the converter's own ranges are kept: {made.note}")
    return Integers(made.data, PassRecord("quantize", made.facts))


def _kept(path: Path) -> Integers | None:
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != note["sha256"]:
            return None
        return Integers(data, build(PassRecord, note["record"], where="record"))
    except (OSError, ValueError, KeyError, TypeError, SchemaError):
        return None
