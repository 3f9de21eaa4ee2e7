"""The ImageNet classifier as it was published: for export without training."""

from __future__ import annotations

from typing import Any, NamedTuple

from smidgen.runtime.manifest import Preprocessing
from smidgen.train.models.backbones import BACKBONES, BackboneName, Normalization
from smidgen.train.models.imagenet import imagenet_labels
from smidgen.train.models.weights import build


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
        WeightsMissing: no package with its weights is installed; the message names it.
    """
    facts = BACKBONES[backbone]
    size = facts.image_size if image_size is None else image_size
    labels = imagenet_labels()
    return Pretrained(
        network=build(backbone, len(labels), size, "imagenet", dropout=0.0),
        labels=labels,
        preprocessing=Preprocessing(width=size, height=size, crop_fraction=size / (size + 32)),
        normalization=facts.normalization,
    )
