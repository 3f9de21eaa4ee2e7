"""The ImageNet classifier as it was published: for export without training."""

from __future__ import annotations

from typing import Any, NamedTuple

from smidgen.runtime.manifest import Preprocessing
from smidgen.train.errors import WeightsMissing
from smidgen.train.models.backbones import BACKBONES, BackboneName, Lite, Normalization
from smidgen.train.models.imagenet import imagenet_labels
from smidgen.train.models.network import build
from smidgen.train.recipe import ModelRecipe


class Pretrained(NamedTuple):
    """A network that knows the 1,000 ImageNet classes, with what it needs to be used.

    ``network`` is a ``keras.Model`` from ``(N, H, W, 3) float32`` normalised pixels to
    ``(N, 1000) float32`` logits.
    """

    network: Any
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    normalization: Normalization


def pretrained(backbone: BackboneName, image_size: int | None = None) -> Pretrained:
    """The published network at its own input size, or at ``image_size`` pixels.

    Raises:
        WeightsMissing: no package with its weights is installed (the message names it), they cannot
            be fetched, or its classifier is more than one dense layer, which is not built here.
    """
    facts = BACKBONES[backbone]
    if not isinstance(facts.builder, Lite) and not facts.builder.has_linear_top:
        raise WeightsMissing(
            f"the published classifier of {backbone} is more than the one dense layer that is "
            "built here; train it on images, or choose another backbone"
        )
    size = facts.image_size if image_size is None else image_size
    labels = imagenet_labels()
    return Pretrained(
        network=build(ModelRecipe(backbone=backbone, dropout=0.0), len(labels), size),
        labels=labels,
        preprocessing=Preprocessing(width=size, height=size, crop_fraction=size / (size + 32)),
        normalization=facts.normalization,
    )
