"""The training recipe: everything that decides which model comes out. Light to import.

One TOML file with the tables ``[data]``, ``[model]``, ``[schedule]`` and ``[distillation]``; every
key but ``data.folder`` has a default that is good for photographs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import tomllib

from smidgen.runtime.errors import SchemaError
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.schema import as_mapping, build, setting
from smidgen.train import recipe_toml
from smidgen.train.models.backbones import BackboneName


@dataclass(frozen=True)
class DataRecipe:
    """Which images, with which labels, cut and scaled how, and who is tested on."""

    folder: str = setting(help="images: a folder per class, or train/ validation/ test/ of those")
    labels: Literal["folders", "file-names", "index", "orientation"] = setting(
        "folders",
        help="what labels an image: its folder, the start of its file name, the index file, or the "
        "quarter turn that it is given (the images are upright, in folders of any depth)",
    )
    separator: str = setting(".", help="file-names: ends the part of a file name that is its label")
    index: str = setting(
        "index.csv",
        help="index: CSV file with the columns path, label and, if wanted, split, group",
    )
    group_by: Literal["none", "folder", "file-names"] = setting(
        "none",
        help="what stays together in one split: the images of a folder, or those whose names begin "
        "alike, up to the separator (an index file has a column for it)",
    )
    near_duplicates: Literal["together", "ignore"] = setting(
        "together", help="whether images that look the same are kept in one split"
    )
    image_size: int = setting(224, help="side of the square input in pixels", low=32, high=1024)
    fit: Literal["crop", "stretch"] = setting("crop", help="centred square, or the whole picture")
    crop_fraction: float = setting(
        1.0, help="side of the centred square as a share of the shorter side", low=0.05, high=1.0
    )
    resample: Literal["bilinear", "bicubic"] = setting("bicubic", help="antialiased resize filter")
    split: tuple[float, ...] = setting(
        (70, 10, 20),
        help="proportions of train, validation and test, or of train and test alone: then a tenth "
        "of train becomes validation",
        low=0.001,
    )
    limit: int = setting(0, help="images per class (0: all of them)", low=0)
    seed: int = setting(
        0, help="another seed gives another split and another limited choice", low=0
    )

    def __post_init__(self) -> None:
        if len(self.split) not in (2, 3):
            raise SchemaError(
                f"data.split = {list(self.split)}: expected three numbers (train, validation, "
                "test), as 70,20,10, or two (train, test), as 80,20"
            )
        if 0 < self.limit < 3:
            raise SchemaError(
                f"data.limit = {self.limit}: allowed 0 (all images), or at least 3 (one image per "
                "class for each of train, validation and test)"
            )
        if not self.separator:
            raise SchemaError('data.separator is empty; give the character, as "." or "_"')
        if self.labels == self.group_by == "file-names":
            raise SchemaError(
                "data.labels and data.group_by are both file-names: a whole class would be one "
                "group; choose another data.group_by"
            )
        if self.labels == "orientation" and self.fit != "crop":
            raise SchemaError(
                f"data.labels = 'orientation' with data.fit = {self.fit!r}: a stretched page shows "
                'how it lay; choose data.fit = "crop", whose square can be turned'
            )

    @property
    def shares(self) -> tuple[float, float, float]:
        """``split`` as shares of train, validation and test that add up to 1."""
        total = sum(self.split)
        if len(self.split) == 2:
            train, test = (part / total for part in self.split)
            return (0.9 * train, 0.1 * train, test)
        train, validation, test = (part / total for part in self.split)
        return (train, validation, test)

    def preprocessing(self) -> Preprocessing:
        """How a picture becomes the input tensor, in training as on the device."""
        return Preprocessing(
            width=self.image_size,
            height=self.image_size,
            fit=self.fit,
            crop_fraction=self.crop_fraction,
            resample=self.resample,
        )


@dataclass(frozen=True)
class ModelRecipe:
    """The network and the weights it starts from."""

    backbone: BackboneName = setting(  # noqa: RUF009 (an alias hides that it is a Literal)
        "efficientnet-lite0", help="name of the network"
    )
    ensemble: tuple[BackboneName, ...] = setting(
        (), help="more networks beside it: the head sees the pooled features of all"
    )
    weights: str = setting(
        "imagenet", help="where to start: imagenet, none, or the path of a weights file"
    )
    head: Literal["linear", "mlp", "dropout-mlp"] = setting(
        "linear",
        help="linear: dropout and one dense layer; mlp: dense 256, LeakyReLU and batch norm before "
        "it; dropout-mlp: batch norm, dropout .5, dense 128, batch norm, dropout .5 before it",
    )
    output: Literal["softmax", "binary"] = setting(
        "softmax", help="binary: one sigmoid unit and binary cross-entropy, for two classes"
    )
    dropout: float = setting(
        0.2, help="share of features dropped in training (linear head)", low=0, high=0.9
    )

    def __post_init__(self) -> None:
        names = (self.backbone, *self.ensemble)
        if len(set(names)) < len(names):
            raise SchemaError(
                f"model.ensemble = {list(self.ensemble)} names a network twice, or model.backbone "
                f"({self.backbone}) again; each may be there once"
            )
        if self.ensemble and self.weights not in ("imagenet", "none"):
            raise SchemaError(
                f"model.weights = {self.weights!r} with model.ensemble: one file cannot hold the "
                'weights of several networks; allowed "imagenet" and "none"'
            )


@dataclass(frozen=True)
class ScheduleRecipe:
    """Two stages: the head with the last blocks, then every layer.

    A stage of 0 epochs is left out: ``head_epochs = 0`` trains every layer from the beginning,
    ``full_epochs = 0`` leaves the frozen layers as they were.
    """

    head_epochs: int = setting(8, help="epochs of the first stage", low=0, high=10_000)
    full_epochs: int = setting(4, help="epochs of the second stage", low=0, high=10_000)
    head_learning_rate: float = setting(1e-3, help="peak of the first stage", low=1e-8, high=10)
    full_learning_rate: float = setting(1e-4, help="peak of the second stage", low=1e-8, high=10)
    freeze_to: str = setting(
        "auto",
        help="last part of the network that the first stage leaves as it is: a block's name, as "
        "block_12; all: the whole backbone; none; auto: the backbone's own choice",
    )
    feature_views: int = setting(
        4,
        help="first stage: what the frozen layers make of each image is computed once, for this "
        "many augmented views (the first one unchanged), and kept (0: anew in each epoch)",
        low=0,
        high=1000,
    )
    batch_norm: Literal["train", "frozen"] = setting(
        "train", help="whether batch norm of trained layers learns, or keeps its statistics"
    )
    decay: Literal["cosine", "none"] = setting("cosine", help="of the learning rate in a stage")
    warm_up: float = setting(
        0.1, help="share of a stage in which the learning rate rises", low=0, high=0.9
    )
    batch_size: int = setting(32, help="images per step", low=1, high=65_536)
    accumulate_steps: int = setting(
        1, help="steps whose gradients make one update of the weights", low=1, high=10_000
    )
    weight_decay: float = setting(1e-4, help="AdamW's decay of kernels", low=0, high=1)
    ema: float = setting(
        0.0, help="share of the average of past weights kept at each update (0: off)", low=0, high=1
    )
    early_stopping: int = setting(
        0, help="epochs of a stage without a better validation that end it (0: off)", low=0
    )
    label_smoothing: float = setting(
        0.1, help="share of each label spread over all classes", low=0, high=0.9
    )
    balance: Literal["none", "weights", "sampling"] = setting(
        "none", help="rare classes count more in the loss, or are drawn more often"
    )
    augmentation: Literal["none", "pixel", "standard", "strong"] = setting(
        "standard",
        help="pixel: noise, blur, colour, JPEG, no geometry; standard: small shifts, zooms, turns, "
        "colour; strong: RandAugment, MixUp, CutMix, erasing",
    )
    random_crop: float = setting(
        1.0,
        help="side of random crops as a share of the image's, at least; from anywhere in it, in "
        "place of the policy's own crops (1: as the policy has it)",
        low=0.1,
        high=1,
    )
    horizontal_flip: bool = setting(
        True, help="mirror images at random in training (wrong for digits and text)"
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32",
        help="of the layers' arithmetic; weights stay float32 (bfloat16: GPUs, newer CPUs)",
    )
    seed: int = setting(0, help="first weights of the head, order of images, augmentation", low=0)
    backend: Literal["tensorflow", "jax"] = setting("tensorflow", help="what Keras computes with")

    def __post_init__(self) -> None:
        if self.head_epochs + self.full_epochs == 0:
            raise SchemaError(
                "schedule.head_epochs and schedule.full_epochs are both 0; "
                "at least one epoch is needed"
            )
        if self.ema >= 1.0:
            raise SchemaError(
                f"schedule.ema = {self.ema:g}: allowed 0 (off) to less than 1, as 0.999"
            )


@dataclass(frozen=True)
class DistillationRecipe:
    """Learning from the answers of finished Runs beside the labels (Hinton et al. 2015)."""

    teachers: tuple[str, ...] = setting((), help="Run folders whose mean answer is learnt from")
    temperature: float = setting(2.0, help="softens the answers compared", low=0.1, high=100)
    teacher_share: float = setting(
        0.5, help="share of the loss that the teachers decide", low=0, high=1
    )


@dataclass(frozen=True)
class TrainRecipe:
    """Everything that decides a Run."""

    data: DataRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    distillation: DistillationRecipe = field(default_factory=DistillationRecipe)

    def __post_init__(self) -> None:
        if self.data.labels != "orientation":
            return
        if self.schedule.horizontal_flip or self.schedule.augmentation in ("standard", "strong"):
            raise SchemaError(
                "data.labels = 'orientation' with schedule.horizontal_flip = "
                f"{str(self.schedule.horizontal_flip).lower()} and schedule.augmentation = "
                f"{self.schedule.augmentation!r}: flips and turns would change the label; choose "
                "horizontal_flip = false with augmentation 'pixel' or 'none'"
            )

    def to_mapping(self) -> dict[str, Any]:
        """Tables of plain values, every default written out."""
        mapping: dict[str, Any] = as_mapping(self)
        return mapping

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> TrainRecipe:
        """Read and check tables of plain values. Raises SchemaError naming the wrong key."""
        return build(cls, mapping)

    def to_toml(self) -> str:
        """The resolved recipe: equal recipes give equal texts."""
        return recipe_toml.dumps(self.to_mapping())

    @classmethod
    def from_toml(cls, text: str) -> TrainRecipe:
        """Read and check a recipe. Raises SchemaError with the line or the key that is wrong."""
        try:
            mapping = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SchemaError(f"the recipe is not TOML: {error}") from error
        return cls.from_mapping(mapping)


def differences(old: TrainRecipe, new: TrainRecipe) -> tuple[str, ...]:
    """Each key whose value differs, as ``table.key: old -> new``."""
    before, after = old.to_mapping(), new.to_mapping()
    return tuple(
        f"{table.name}.{key}: {value!r} -> {after[table.name][key]!r}"
        for table in fields(TrainRecipe)
        for key, value in before[table.name].items()
        if value != after[table.name][key]
    )
