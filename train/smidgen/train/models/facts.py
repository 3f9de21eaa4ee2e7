"""What a ``ModelRecipe`` asks for, as far as it is known without building it. Light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smidgen.runtime.errors import SchemaError
from smidgen.train.models.backbones import BACKBONES, BackboneName, Normalization

if TYPE_CHECKING:
    from smidgen.train.recipe import ModelRecipe

_PIXELS = Normalization.uniform(0.0, 1.0)


def backbones_of(model: ModelRecipe) -> tuple[BackboneName, ...]:
    """The networks of ``model``, in the order of their features."""
    return (model.backbone, *model.ensemble)


def normalization_of(model: ModelRecipe) -> Normalization:
    """What is done to pixels before they enter the network that ``build`` makes of ``model``.

    The networks of an ensemble normalise inside, each in its own way: it takes pixels as they are.
    """
    return _PIXELS if model.ensemble else BACKBONES[model.backbone].normalization


def parameters_of(model: ModelRecipe) -> int:
    """About how many trainable numbers; no fewer than there are for up to 1,000 classes."""
    return sum(BACKBONES[name].parameters for name in backbones_of(model)) + 1_000_000


def check_model(model: ModelRecipe, classes: int, image_size: int) -> None:
    """Do nothing where ``build`` can make the network.

    Raises:
        SchemaError: too small an image for one of the backbones, or a binary output for other than
            two classes.
    """
    if model.output == "binary" and classes != 2:
        raise SchemaError(
            f"model.output = 'binary' with {classes} classes: one sigmoid unit tells two classes "
            "apart; choose model.output = 'softmax'"
        )
    for name in backbones_of(model):
        smallest = BACKBONES[name].smallest_image_size
        if image_size < smallest:
            raise SchemaError(
                f"data.image_size = {image_size}: {name} takes at least {smallest} pixels; choose "
                f"data.image_size = {smallest} or more, or another backbone"
            )
