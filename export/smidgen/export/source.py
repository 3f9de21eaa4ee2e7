"""Where a float model comes from: a Run, or the pretrained network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smidgen.export.errors import SourceError
from smidgen.export.pictures import Picture, hash_of_hashes, picture_of, scan_unlabelled
from smidgen.runtime.files import sha256_of_file
from smidgen.runtime.manifest import Preprocessing
from smidgen.train.errors import WeightsError

if TYPE_CHECKING:
    from smidgen.train.data import Dataset
    from smidgen.train.models.backbones import BackboneName
    from smidgen.train.recipe import TrainRecipe
    from smidgen.train.run import Run

_FEWEST_UNLABELLED = 20


@dataclass(frozen=True)
class ChannelNormalization:
    """``(pixel - mean) / std`` for each of R, G, B, with pixels in 0..255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(
        cls, mean: float | Sequence[float], std: float | Sequence[float]
    ) -> ChannelNormalization:
        """From one number for all channels, or three."""
        return cls(_three(mean), _three(std))


@dataclass(frozen=True)
class TrainingData:
    """What a network may be tuned on: the recipe it was trained with, and its images."""

    recipe: TrainRecipe
    dataset: Dataset


@dataclass(frozen=True)
class FloatModel:
    """A float model with everything that its Bundles must say, and the images to verify them on.

    ``load`` returns a functional Keras model on the TensorFlow backend: normalised
    ``(N, H, W, 3) float32`` to logits ``(N, classes) float32``. Held-out pictures without labels
    are judged against the model's own answers. Where there are no pictures at all, synthetic ones
    are used, and int8 is refused. On the labelled ``validation`` pictures each file's temperature
    and threshold are fitted; none: it has none. Where ``training`` is None it cannot be tuned.
    """

    name: str
    source: str
    backbone: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    normalization: ChannelNormalization
    load: Callable[[], Any]
    weights_sha256: str
    data_sha256: str
    calibration_pool: tuple[Picture, ...] = ()
    held_out: tuple[Picture, ...] = ()
    validation: tuple[Picture, ...] = ()
    training: TrainingData | None = None
    run: Run | None = field(default=None, repr=False)
    recipe_toml: str = ""
    trained_utc: str = ""
    commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def from_run(run: Run) -> FloatModel:
    """The float model of a finished Run: calibrated on its train split, judged on its test split.

    What is fitted after conversion is fitted on its validation split.

    In the orientation task each test image is held out four times, once for each turn; the gate
    knows by their content that the four answers are not independent.

    Raises:
        SourceError: the Run is not finished, or a file of it is missing.
    """
    weights = run.folder / "model.keras"
    if not run.is_finished or not weights.is_file():
        raise SourceError(
            f"{run.folder} holds no finished model: run `smidgen train` with its "
            "recipe until the end"
        )
    dataset = run.dataset()
    provenance = _read_json(run.folder / "provenance.json")
    normalization = run.normalization

    def load() -> Any:
        from smidgen.export.tensorflow_backend import captured_output
        from smidgen.train.models.weights import load_network

        try:
            with captured_output():
                return load_network(weights)
        except WeightsError as error:
            raise SourceError(f"cannot load the model ({error}): train again") from error

    return FloatModel(
        name=run.folder.resolve().name,
        source=run.folder.resolve().name,
        backbone=run.recipe.model.backbone,
        labels=tuple(run.labels),
        preprocessing=run.preprocessing(),
        normalization=ChannelNormalization.of(normalization.mean, normalization.std),
        load=load,
        weights_sha256=sha256_of_file(weights),
        data_sha256=dataset.sha256,
        calibration_pool=tuple(map(picture_of, dataset.train)),
        held_out=tuple(map(picture_of, dataset.test)),
        validation=tuple(map(picture_of, dataset.validation)),
        training=TrainingData(run.recipe, dataset),
        run=run,
        recipe_toml=(run.folder / "recipe.toml").read_text(encoding="utf-8"),
        trained_utc=str(provenance.get("created_utc", "")),
        commit=str(provenance.get("commit", "")),
        versions={key: str(value) for key, value in provenance.get("versions", {}).items()},
    )


def from_pretrained(
    backbone: BackboneName, image_size: int | None = None, images: str | None = None
) -> FloatModel:
    """The 1,000-class ImageNet model of ``backbone``.

    Args:
        backbone: a key of ``smidgen.train.models.backbones.BACKBONES``.
        image_size: side of the input in pixels; None: what the network was trained with.
        images: a folder of pictures without labels, any depth: one half (by content hash) for int8
            calibration, the other held out for the gate. None: float32 only.

    Raises:
        SourceError: fewer than 20 images.
    """
    from smidgen.export.tensorflow_backend import captured_output
    from smidgen.train.models.pretrained import pretrained

    pool: tuple[Picture, ...] = ()
    held_out: tuple[Picture, ...] = ()
    if images is not None:
        pictures = scan_unlabelled(images)
        if len(pictures) < _FEWEST_UNLABELLED:
            raise SourceError(
                f"{images} holds {len(pictures)} different images: expected at least "
                f"{_FEWEST_UNLABELLED}, half of them for calibration and half for the gate"
            )
        pool = tuple(picture for picture in pictures if int(picture.sha256, 16) % 2 == 0)
        held_out = tuple(picture for picture in pictures if int(picture.sha256, 16) % 2 == 1)
    with captured_output():
        published = pretrained(backbone, image_size)
    return FloatModel(
        name=f"{backbone}-{published.preprocessing.width}",
        source=f"pretrained {backbone}",
        backbone=backbone,
        labels=published.labels,
        preprocessing=published.preprocessing,
        normalization=ChannelNormalization.of(
            published.normalization.mean, published.normalization.std
        ),
        load=lambda: published.network,
        weights_sha256=weights_sha256(published.network),
        data_sha256=hash_of_hashes((*pool, *held_out)),
        calibration_pool=pool,
        held_out=held_out,
    )


def weights_sha256(network: Any) -> str:
    """SHA-256 over all weights of a network, in their order."""
    digest = hashlib.sha256()
    for weight in network.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _three(value: float | Sequence[float]) -> tuple[float, float, float]:
    if isinstance(value, (int, float)):
        return (float(value),) * 3
    red, green, blue = value
    return float(red), float(green), float(blue)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {path} ({error}): train again") from error
    return content if isinstance(content, dict) else {}
