"""The golden sample: one picture inside the Bundle, and what must come out of it on any device.

Four stages, each measured: the picture decodes, its input tensor is the expected one, its scores
are (to the bit where ``compatibility.promises_bits``, else within a tolerance), its label is.
``make_golden`` (used by the exporter) and ``examine`` share one definition.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Union

import numpy as np

from smidgen.runtime.classifier import Classifier
from smidgen.runtime.compatibility import promises_bits
from smidgen.runtime.errors import SelfTestFailed, SmidgenError
from smidgen.runtime.manifest import GoldenSample, Preprocessing
from smidgen.runtime.preprocessing import decode, load_pixels, upright_rgb

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    Pixels = npt.NDArray[np.uint8]

MAX_PNG_BYTES = 40_000
_SHORTER_SIDES = (128, 112, 96, 80, 64, 48, 32, 24, 16)
_PROBE_CELLS = 16
_SCORE_DECIMALS = 7


@dataclass(frozen=True)
class Stage:
    """One stage's measured ``difference`` from the golden sample against its ``tolerance``.

    In units of the stage: tensor in pixel values 0..255, scores in probability, image and label in
    0 (right) or 1 (wrong).
    """

    name: str
    passed: bool
    difference: float
    tolerance: float
    detail: str


@dataclass(frozen=True)
class SelfTestReport:
    """All stages that could be reached, in order."""

    bundle: str
    engine: str
    engine_version: str
    stages: tuple[Stage, ...]

    @property
    def passed(self) -> bool:
        """Whether every stage was reached and is within its tolerance."""
        return len(self.stages) == 4 and all(stage.passed for stage in self.stages)


def selftest(classifier: Classifier) -> SelfTestReport:
    """Run the golden sample.

    Raises:
        SelfTestFailed: the Bundle has none, or a stage is out of its tolerance; names the first.
    """
    report = examine(classifier)
    if not report.passed:
        stage = next(stage for stage in report.stages if not stage.passed)
        raise SelfTestFailed(
            f"{report.bundle}: stage {stage.name!r} failed on {report.engine} "
            f"{report.engine_version}: {stage.detail}"
        )
    return report


def examine(classifier: Classifier) -> SelfTestReport:
    """Run the golden sample and report every stage, failed ones too.

    Raises:
        SelfTestFailed: the Bundle has no golden sample.
    """
    golden = classifier.manifest.golden
    name = str(classifier.bundle.path)
    if golden is None:
        raise SelfTestFailed(f"{name}: no golden sample inside; export the model again")
    stages: list[Stage] = []
    try:
        png = golden_png(golden)
        pixels = load_pixels(png, classifier.manifest.preprocessing)
    except SmidgenError as error:
        stages.append(Stage("image", False, 1.0, 0.0, str(error)))
    else:
        stages.append(Stage("image", True, 0.0, 0.0, f"{len(png)} bytes of PNG decoded"))
        stages.append(_tensor_stage(golden, pixels))
        stages.extend(_answer_stages(golden, classifier, pixels))
    return SelfTestReport(name, classifier.engine_name, classifier.engine_version, tuple(stages))


def make_golden(
    image: Union[str, os.PathLike[str], bytes],
    preprocessing: Preprocessing,
    scores: Callable[[Pixels], npt.NDArray[Any]],
    labels: Sequence[str],
    score_tolerance: float,
) -> GoldenSample:
    """The golden sample of a picture.

    The picture is turned upright, made RGB and reduced until its PNG has at most MAX_PNG_BYTES;
    tensor, scores and label come from that PNG, as they will on a device.

    Args:
        image: a path or the bytes of an image file.
        preprocessing: the Bundle's.
        scores: ``(1, H, W, 3) uint8`` to ``(1, classes)`` probabilities of this very Bundle.
        labels: one per class.
        score_tolerance: allowed absolute difference of a probability on other machines.

    Raises:
        ImageError: the picture cannot be read.
    """
    png = _small_png(upright_rgb(decode(image), preprocessing))
    pixels = load_pixels(png, preprocessing)
    row = np.asarray(scores(pixels[np.newaxis]), dtype=np.float64).reshape(-1)
    stride = max(1, min(preprocessing.width, preprocessing.height) // _PROBE_CELLS)
    return GoldenSample(
        image_png=base64.b64encode(png).decode("ascii"),
        label=labels[int(np.argmax(row))],
        scores=tuple(round(float(score), _SCORE_DECIMALS) for score in row),
        score_tolerance=score_tolerance,
        tensor_sha256=_sha256(pixels),
        tensor_probe=base64.b64encode(_probe(pixels, stride)).decode("ascii"),
        tensor_stride=stride,
    )


def golden_png(golden: GoldenSample) -> bytes:
    """The picture of a golden sample, as the bytes of a PNG file. Raises SelfTestFailed."""
    try:
        return base64.b64decode(golden.image_png, validate=True)
    except ValueError as error:  # binascii.Error, or a letter outside ASCII
        raise SelfTestFailed(f"the golden picture is not base64 ({error}); export again") from error


def _tensor_stage(golden: GoldenSample, pixels: Pixels) -> Stage:
    tolerance = float(golden.tensor_tolerance)
    if _sha256(pixels) == golden.tensor_sha256:
        return Stage("tensor", True, 0.0, tolerance, "equal in every value")
    found = np.frombuffer(_probe(pixels, golden.tensor_stride), np.uint8)
    try:
        expected = np.frombuffer(base64.b64decode(golden.tensor_probe, validate=True), np.uint8)
    except ValueError as error:  # binascii.Error, or a letter outside ASCII
        return Stage("tensor", False, 255.0, tolerance, f"the probe is not base64 ({error})")
    if expected.shape != found.shape:
        detail = f"{len(found)} probed values, {len(expected)} in the golden sample"
        return Stage("tensor", False, 255.0, tolerance, detail)
    worst = float(np.abs(found.astype(int) - expected.astype(int)).max(initial=0))
    detail = f"largest difference of {len(found)} probed values {worst:g}, allowed {tolerance:g}"
    return Stage("tensor", worst <= tolerance, worst, tolerance, detail)


def _answer_stages(golden: GoldenSample, classifier: Classifier, pixels: Pixels) -> list[Stage]:
    exact = promises_bits(
        classifier.engine_name, classifier.engine_version, classifier.options, classifier.manifest
    )
    tolerance = 0.0 if exact else golden.score_tolerance
    try:
        scores = classifier.scores(pixels[np.newaxis])[0]
    except SmidgenError as error:
        return [Stage("scores", False, 1.0, tolerance, str(error))]
    worst = float(np.abs(scores - np.asarray(golden.scores)).max())
    if exact and worst < 0.5 * classifier.manifest.output.scale:  # golden: 7 decimals
        worst = 0.0
    allowed = "must be equal to the bit" if exact else f"allowed {tolerance:g}"
    detail = f"largest difference of {len(scores)} probabilities {worst:.2g}, {allowed}"
    label = classifier.manifest.labels[int(np.argmax(scores))]
    right = label == golden.label
    return [
        Stage("scores", worst <= tolerance, worst, tolerance, detail),
        Stage("label", right, 0.0 if right else 1.0, 0.0, f"{label!r}, expected {golden.label!r}"),
    ]


def _sha256(pixels: Pixels) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _probe(pixels: Pixels, stride: int) -> bytes:
    """Every ``stride``-th row and column of ``(H, W, 3) uint8``, in C order."""
    return pixels[::stride, ::stride].tobytes()


def _small_png(image: Image.Image) -> bytes:
    """``image`` (RGB) as a PNG of at most MAX_PNG_BYTES, within 128 x 256 px or less."""
    data = b""
    for side in _SHORTER_SIDES:
        shrink = min(1.0, side / min(image.size), 2 * side / max(image.size))
        width, height = (max(1, round(length * shrink)) for length in image.size)
        small = image.resize((width, height))
        small.info = {}  # no colour profile, no EXIF orientation: pixels alone
        stream = io.BytesIO()
        small.save(stream, "PNG", optimize=True)
        data = stream.getvalue()
        if len(data) <= MAX_PNG_BYTES:
            break
    return data
