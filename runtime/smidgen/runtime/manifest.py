"""The Manifest: what a Bundle says about itself, as frozen dataclasses and as JSON.

Format (version 2): one UTF-8 JSON object with sorted keys, no insignificant white space. In a
``.tflite`` Bundle it is the file ``smidgen.json`` in the zip archive appended to the model, beside
the standard ``labels.txt``; in an ``.onnx`` Bundle the ``metadata_props`` entry
``smidgen.manifest``, with the SHA-256 of its UTF-8 text under ``smidgen.manifest_sha256``.
Unknown keys are an error: a newer manifest needs a newer runtime, and is told so.

Whatever adds a key or a choice raises ``FORMAT_VERSION`` with the next release, and gives the key a
default, so that every older version still reads. Version 2 added ``provenance.passes``, the schemes
beside float32 and int8, what the Verdict says beyond top-1, and ``temperature``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal, Optional

from smidgen.runtime.errors import NotABundle, SchemaError
from smidgen.runtime.schema import as_mapping, build, setting

FORMAT_VERSION = 2
MANIFEST_FILE = "smidgen.json"
LABELS_FILE = "labels.txt"
ONNX_MANIFEST_KEY = "smidgen.manifest"
ONNX_MANIFEST_HASH_KEY = "smidgen.manifest_sha256"

VerdictWord = Literal["pass", "fail", "undecided"]

Scheme = Literal["float32", "float16", "dynamic", "weights-int8", "int8", "int16x8"]
"""Number formats: float32; float16 weights; int8 weights with activations quantized as they come
(dynamic); int8 weights that are made float again (weights-int8); int8 weights and activations;
int8 weights with int16 activations."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the input tensor: the one definition for training, calibration and devices.

    1. decode; turn as the EXIF orientation says, when ``exif_orientation``
    2. to 8-bit RGB: transparent pixels composited over ``background``, 16-bit scaled to 8,
       grey copied to the three channels
    3. take a box of the picture: for ``fit = "crop"`` the centred square whose side is
       ``crop_fraction`` of the shorter side; for ``"stretch"`` the whole picture
    4. resize the box to ``(height, width)`` with the antialiased filter ``resample`` of Pillow's
       ``Image.resize(size, resample, box)``

    Result: ``(height, width, 3) uint8, RGB, 0..255``. Normalisation is inside the model.
    """

    width: int = setting(help="input width in pixels", low=1, high=4096)
    height: int = setting(help="input height in pixels", low=1, high=4096)
    fit: Literal["crop", "stretch"] = setting("crop", help="centred square, or the whole picture")
    crop_fraction: float = setting(
        1.0, help="side of the centred square as a share of the shorter side", low=0.05, high=1.0
    )
    resample: Literal["bilinear", "bicubic"] = setting("bicubic", help="antialiased resize filter")
    exif_orientation: bool = setting(True, help="honour the EXIF orientation tag")
    background: tuple[int, int, int] = setting(
        (255, 255, 255), help="RGB behind transparent pixels", low=0, high=255
    )


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the model. ``-1`` in ``shape`` is any batch size.

    ``real = (stored - zero_point) * scale``; scale 1 and zero_point 0 where values are stored as
    they are.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "int8", "float32"]
    layout: Literal["NHWC", "NCHW", "NC"]
    low: float
    high: float
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True)
class GoldenSample:
    """One picture with everything that must come out of it on any device.

    ``tensor_probe`` holds every ``tensor_stride``-th row and column of the expected input tensor,
    base64 of ``uint8`` in C order; ``tensor_sha256`` is the hash of the whole tensor's bytes.
    """

    image_png: str = setting(help="the picture, base64 of a PNG file")
    label: str = setting(help="the expected label")
    scores: tuple[float, ...] = setting(help="the expected probabilities, one per label")
    score_tolerance: float = setting(help="allowed absolute difference of a probability", low=0)
    tensor_sha256: str = setting(help="SHA-256 of the expected input tensor")
    tensor_probe: str = setting(help="base64 of a grid of the expected input tensor")
    tensor_stride: int = setting(help="rows and columns between probed pixels", low=1)
    tensor_tolerance: int = setting(2, help="allowed difference of a pixel value", low=0, high=255)


@dataclass(frozen=True)
class PairedDrop:
    """A share of the images for both files: the reference's minus this file's, in points.

    ``drop_low_points`` and ``drop_high_points`` are the ends of its 95 % interval for pairs.
    """

    reference_percent: float
    percent: float
    drop_points: float
    drop_low_points: float
    drop_high_points: float


@dataclass(frozen=True)
class ClassAnswers:
    """Both files on the images of one class: how many there are, how many each has right."""

    label: str
    images: int
    reference_right: int
    right: int


@dataclass(frozen=True)
class Verdict:
    """What the accuracy-regression gate measured: this file against the float model, in pairs.

    ``drop_points`` is the reference's top-1 minus this file's, in percentage points (negative:
    better), with its 95 % confidence interval for paired answers. ``truth`` says what an answer was
    compared with: the images' labels, or (where there are none) the reference's own answers.

    The rest is None in files of format version 1, and where it does not apply. Of the
    ``changed_answers``, ``lost`` were right only before and ``gained`` only now; ``mcnemar_p`` and
    ``mcnemar_mid_p`` are two-sided p-values of the exact McNemar test, that losses and gains are
    equally likely. ``images_to_decide``: about how many images would decide an undecided gate.
    ``distinct_images``: given where pictures repeat (turned); then interval and p-values take the
    answers on one picture for dependent, and ``design_effect`` answers count as one. ``top5`` is
    there for ten classes and more. ``worst_class`` lost the largest share of its images;
    only the ``classes_compared`` classes with 20 images or more can be named.
    ``confidence_shift_points`` is this file's mean top score minus the reference's, in percentage
    points; the calibration errors are expected calibration errors over 15 bins, 0..100. Both are of
    what a Bundle shows, after its ``temperature``, and of a float network's own probabilities; all
    else is of the models' own scores, which the temperature does not change.
    """

    verdict: VerdictWord
    images: int
    reference_top1_percent: float
    top1_percent: float
    drop_points: float
    drop_low_points: float
    drop_high_points: float
    max_drop_points: float
    changed_answers: int
    mean_score_difference: float
    max_score_difference: float
    truth: Literal["labels", "reference"] = "labels"
    engine: str = ""
    lost: Optional[int] = None
    gained: Optional[int] = None
    mcnemar_p: Optional[float] = None
    mcnemar_mid_p: Optional[float] = None
    images_to_decide: Optional[int] = None
    distinct_images: Optional[int] = None
    design_effect: Optional[float] = None
    top5: Optional[PairedDrop] = None
    worst_class: Optional[ClassAnswers] = None
    classes_compared: Optional[int] = None
    confidence_shift_points: Optional[float] = None
    reference_calibration_error_percent: Optional[float] = None
    calibration_error_percent: Optional[float] = None


@dataclass(frozen=True)
class PassRecord:
    """One step that changed the trained network on its way into the file, and what it found."""

    name: str = setting(help="channels, sparsity, clustering, qat, quantize ...")
    facts: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Where the file comes from: enough to make it again.

    ``created_utc`` is when the float model was trained, empty where that is not known: when the
    file was made is not said, so that equal inputs give equal bytes.
    """

    created_utc: str
    backbone: str
    source: str = setting(help="name of the Run, or of the pretrained model")
    recipe_toml: str = setting(help="the whole resolved recipe")
    weights_sha256: str = setting(help="SHA-256 of the float model's weights file")
    data_sha256: str = setting(help="SHA-256 over the content hashes of all images used")
    calibration_sha256: str = ""
    calibration_images: int = 0
    passes: tuple[PassRecord, ...] = setting((), help="what changed the network, in order")
    commit: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything that a device must know to use the model in the same file."""

    name: str
    model_format: Literal["tflite", "onnx"]
    scheme: Scheme
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    input: TensorSpec
    output: TensorSpec
    provenance: Provenance
    payload_sha256: str = setting(help="SHA-256 of the file without this manifest (see bundle.py)")
    minimum_runtime: dict[str, str] = dataclasses.field(default_factory=dict)
    golden: Optional[GoldenSample] = None
    verdict: Optional[Verdict] = None
    temperature: float = setting(
        1.0, help="divides the logits before an answer says how sure it is", low=0.01, high=100
    )
    abstain_below: float = setting(
        0.0, help="answers with a lower top score, after the temperature, abstain", low=0, high=1
    )
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The manifest as canonical JSON: equal manifests give equal bytes.

        It is of today's version, whichever was read: it has today's keys.
        """
        mapping = {**as_mapping(self), "format_version": FORMAT_VERSION}
        return json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read and check a manifest. Raises NotABundle with what is wrong in it."""
        try:
            mapping = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NotABundle(
                f"the manifest is not JSON ({error}); export the model again"
            ) from error
        version = mapping.get("format_version") if isinstance(mapping, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise NotABundle(
                f"the manifest has format version {version}, this runtime reads up to "
                f"{FORMAT_VERSION}; upgrade smidgen-runtime"
            )
        try:
            manifest = build(cls, mapping, where="manifest")
        except (SchemaError, OverflowError) as error:
            raise NotABundle(f"the manifest is not valid: {error}") from error
        manifest._check()
        return manifest

    def _check(self) -> None:
        count = len(self.labels)
        if count < 2 or self.output.shape[-1:] != (count,):
            raise NotABundle(
                f"the manifest names {count} labels for an output of shape {self.output.shape}"
            )
        if self.golden is not None and len(self.golden.scores) != count:
            raise NotABundle("the golden sample has another number of scores than there are labels")
