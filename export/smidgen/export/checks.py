"""Checks of one converted file beside its gate, and what goes with it: parity, sizes, C header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smidgen.export.bundles import Wanted
from smidgen.export.pictures import Picture, pixel_batches
from smidgen.runtime.files import write_text
from smidgen.runtime.manifest import Manifest

if TYPE_CHECKING:
    from smidgen.export.formats.conversion import Converted, Converter

_PARITY_IMAGES = 56
"""Enough to see another answer; the gate asks all images."""


def check_onnx(
    converter: Converter, converted: Converted, wanted: Wanted, pictures: Sequence[Picture]
) -> dict[str, str]:
    """That an ``.onnx`` gives the same rows in every batch, and an int8 one what the TFLite gives.

    Returns what was found, in words; nothing for a ``.tflite``, whose batch is 1.

    Raises:
        ConversionError: a difference that is too large.
        CandidateFailed: a file does not run.
    """
    if wanted.model_format != "onnx":
        return {}
    from smidgen.export.formats.parity import check_batches, check_integer, require_parity

    pixels = _pixels(pictures, wanted)
    batches = check_batches(converted.data, "onnx", converted.input.shape[0], pixels[:14])
    require_parity(batches, "the .onnx file in batches")
    sizes = ", ".join(map(str, batches.batches))
    facts = {"batches": f"{sizes} agree to {batches.max_difference:.1g}"}
    if wanted.scheme == "int8":
        same = check_integer(converter.integers.data, converted.data, pixels)
        require_parity(same, "the int8 .onnx file")
        facts["same as .tflite"] = (
            f"top-1 of {same.same_top1:.1%} of {same.images} images, scores within "
            f"{same.max_score_difference:.2g}"
        )
    return facts


def write_c_header(bundle: bytes, manifest: Manifest, path: Path) -> dict[str, str]:
    """Write a C header of an int8 ``.tflite`` Bundle; the RAM that tflite-micro needs, in words.

    Raises:
        TargetError: tflite-micro has no kernel for an operator.
        CandidateFailed: tflite-micro cannot run it.
        OutputError: ``path`` cannot be written.
    """
    from smidgen.export.formats.c_header import c_header
    from smidgen.export.formats.micro_arena import arena_bytes

    arena = arena_bytes(bundle)
    write_text(path, c_header(bundle, manifest, arena))
    return {"C header": path.name, "tflite-micro arena bytes": str(arena)}


def _pixels(pictures: Sequence[Picture], wanted: Wanted) -> NDArray[np.uint8]:
    preprocessing = wanted.source.preprocessing
    return np.concatenate(list(pixel_batches(pictures[:_PARITY_IMAGES], preprocessing, 32)))
