"""What all contenders start from: the float network in three forms, and the same pixels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from smidgen.bench.errors import NothingToMeasure
from smidgen.bench.quantization.task import PixelScale, Subject, Task
from smidgen.export.calibration import Calibration
from smidgen.export.formats.to_onnx import to_onnx_core
from smidgen.export.graphs.deploy_graph import pixel_code, quantizable_graph
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.pictures import Picture, pixel_batches, scan_unlabelled
from smidgen.export.source import FloatModel, from_pretrained
from smidgen.export.tensorflow_backend import captured_output, keras, tf
from smidgen.train.models.backbones import BACKBONES

_INDEX = re.compile(r"(\d{4})_")


@dataclass(frozen=True)
class Material:
    """``task`` lacks only method and target. ``pixels``: ``(N, H, W, 3) uint8`` to judge on.

    ``logits``: the float model's on them, ``(N, classes) float32``. ``truth``: ``(N,) int64``, or
    None where the files' names do not tell.
    """

    task: Task
    pixels: NDArray[np.uint8]
    logits: NDArray[np.float32]
    truth: NDArray[np.int64] | None


def split(
    pictures: Sequence[Picture], count: int, fold: int = 0
) -> tuple[list[Picture], list[Picture]]:
    """The ``fold``-th ``count`` by content hash to calibrate on, and the others to judge on.

    Raises:
        NothingToMeasure: there are not as many, or none would be left to judge on.
    """
    start, end = fold * count, (fold + 1) * count
    if len(pictures) <= count or len(pictures) < end:
        raise NothingToMeasure(
            f"{len(pictures)} different images, fold {fold} of {count} for calibration: expected "
            "more, or a lower fold or count, so that some are left to judge on"
        )
    ordered = sorted(pictures, key=lambda picture: picture.sha256)
    return ordered[start:end], ordered[:start] + ordered[end:]


def truth_of(names: Sequence[str]) -> NDArray[np.int64] | None:
    """Class indices ``(N,) int64`` from names ``IIII_...``; None where one is named otherwise."""
    found = [_INDEX.match(name) for name in names]
    if not all(found):
        return None
    return np.array([int(match[1]) for match in found if match], np.int64)


def float_model(subject: Subject) -> FloatModel:
    """The network with the images of the fold for calibration, and the others held out.

    Raises:
        SmidgenError: the network is not known, or there are too few images.
    """
    if subject.network not in BACKBONES:
        raise NothingToMeasure(
            f"network {subject.network!r} is not known: expected one of "
            f"{', '.join(sorted(BACKBONES))}"
        )
    pictures = scan_unlabelled(subject.images)
    calibration, judged = split(pictures, subject.calibration_images, subject.fold)
    source = from_pretrained(subject.network, images=subject.images)
    return dataclasses.replace(source, calibration_pool=tuple(calibration), held_out=tuple(judged))


def prepare(subject: Subject, source: FloatModel, folder: Path) -> Material:
    """Write the float files and the calibration pixels into ``folder``, and answer in float.

    ``source``: the ``float_model`` of ``subject``.
    """
    model = source.load()
    with captured_output():
        folded = fold_batch_norms(model).model
        graph = quantizable_graph(folded, source.normalization, batch=1)
        decoded_to_logits = keras.Model(graph.input, graph.layers[-1].input)
        decoded_to_logits.save(folder / "float.keras")
        converter = tf.lite.TFLiteConverter.from_keras_model(decoded_to_logits)
        (folder / "float.tflite").write_bytes(converter.convert())
        core = without_softmax(to_onnx_core(folded, source.normalization))
        onnx.save(core, folder / "float.onnx")
    code = pixel_code(source.normalization)
    calibration = Calibration(source.calibration_pool, source.preprocessing)
    np.save(folder / "calibration.npy", np.concatenate(list(calibration.pixels())))
    pixels = np.concatenate(list(pixel_batches(source.held_out, source.preprocessing, 32)))
    task = Task(
        subject=subject,
        keras=str(folder / "float.keras"),
        tflite=str(folder / "float.tflite"),
        onnx=str(folder / "float.onnx"),
        pixels=str(folder / "calibration.npy"),
        scale=PixelScale(code.scale, code.zero_point),
    )
    truth = truth_of([Path(picture.path).name for picture in source.held_out])
    return Material(task, pixels, _logits(model, source, pixels), truth)


def without_softmax(core: Any) -> Any:
    """An ONNX model that ends in Softmax, cut before it, in place."""
    (last,) = (node for node in core.graph.node if node.op_type == "Softmax")
    shape = core.graph.output[0].type
    core.graph.node.remove(last)
    del core.graph.output[:]
    core.graph.output.append(onnx.ValueInfoProto(name=last.input[0], type=shape))
    return core


def _logits(model: Any, source: FloatModel, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    mean = np.asarray(source.normalization.mean, np.float32)
    std = np.asarray(source.normalization.std, np.float32)
    rows = [
        np.asarray(model((pixels[start : start + 32] - mean) / std, training=False), np.float32)
        for start in range(0, len(pixels), 32)
    ]
    return np.concatenate(rows)
