"""The training recipe: everything that decides which model comes out. Light to import.

One TOML file with the tables ``[data]``, ``[model]`` and ``[schedule]``; every key but
``data.folder`` has a default that is good for photographs.
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

_SPLIT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class DataRecipe:
    """Which images, cut and scaled how, and who is trained on, chosen with and tested on."""

    folder: str = setting(help="images: one folder per class, or train/ validation/ test/ of those")
    image_size: int = setting(224, help="side of the square input in pixels", low=64, high=384)
    fit: Literal["crop", "stretch"] = setting("crop", help="centred square, or the whole picture")
    crop_fraction: float = setting(
        1.0, help="side of the centred square as a share of the shorter side", low=0.05, high=1.0
    )
    resample: Literal["bilinear", "bicubic"] = setting("bicubic", help="antialiased resize filter")
    split: tuple[float, float, float] = setting(
        (0.7, 0.1, 0.2), help="shares of train, validation and test", low=0.01, high=0.98
    )
    limit: int = setting(0, help="images per class (0: all of them)", low=0)
    seed: int = setting(
        0, help="another seed gives another split and another limited choice", low=0
    )

    def __post_init__(self) -> None:
        if abs(sum(self.split) - 1.0) > _SPLIT_TOLERANCE:
            raise SchemaError(
                f"data.split = {list(self.split)} adds up to {sum(self.split):g}; "
                "the shares of train, validation and test must add up to 1"
            )
        if 0 < self.limit < len(self.split):
            raise SchemaError(
                f"data.limit = {self.limit}: allowed 0 (all images), or at least {len(self.split)} "
                "(one image per class for each of train, validation and test)"
            )

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
    weights: str = setting(
        "imagenet", help="where to start: imagenet, none, or the path of a .keras or .pth file"
    )
    dropout: float = setting(0.2, help="share of features dropped in training", low=0, high=0.9)


@dataclass(frozen=True)
class ScheduleRecipe:
    """Two stages: the head with the last blocks, then every layer; each with a cosine decay."""

    head_epochs: int = setting(3, help="epochs of the first stage", low=0, high=10_000)
    full_epochs: int = setting(8, help="epochs of the second stage", low=0, high=10_000)
    head_learning_rate: float = setting(1e-3, help="peak of the first stage", low=1e-8, high=10)
    full_learning_rate: float = setting(1e-4, help="peak of the second stage", low=1e-8, high=10)
    unfrozen_blocks: int = setting(
        3, help="last blocks trained together with the head", low=0, high=100
    )
    batch_size: int = setting(32, help="images per step", low=1, high=65_536)
    weight_decay: float = setting(1e-4, help="AdamW's decay of kernels", low=0, high=1)
    label_smoothing: float = setting(
        0.1, help="share of each label spread over all classes", low=0, high=0.9
    )
    augmentation: Literal["none", "standard"] = setting(
        "standard", help="standard: small shifts, zooms, turns, brightness and contrast"
    )
    horizontal_flip: bool = setting(
        True, help="mirror images at random in training (wrong for digits and text)"
    )
    seed: int = setting(0, help="first weights of the head, order of images, augmentation", low=0)
    backend: Literal["tensorflow", "jax"] = setting("tensorflow", help="what Keras computes with")

    def __post_init__(self) -> None:
        if self.head_epochs + self.full_epochs == 0:
            raise SchemaError(
                "schedule.head_epochs and schedule.full_epochs are both 0; "
                "at least one epoch is needed"
            )


@dataclass(frozen=True)
class TrainRecipe:
    """Everything that decides a Run."""

    data: DataRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)

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
