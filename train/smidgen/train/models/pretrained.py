"""The ImageNet classifier as it was published: for export without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smidgen.runtime.manifest import Preprocessing
from smidgen.train.models.backbones import BACKBONES, BackboneName, Normalization
from smidgen.train.models.imagenet import imagenet_labels
from smidgen.train.models.weights import build, weights_sha256


@dataclass(frozen=True)
class Pretrained:
    """A network that knows the 1,000 ImageNet classes, with what it needs to be used.

    ``network`` is a ``keras.Model`` from ``(N, H, W, 3) float32`` normalised pixels to
    ``(N, 1000) float32`` logits.
    """

    network: Any
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    normalization: Normalization
    weights_sha256: str


def pretrained(backbone: BackboneName, image_size: int | None = None) -> Pretrained:
    """The published network at its own input size, or at ``image_size`` pixels.

    Raises:
        WeightsMissing: no package with its weights is installed; the message names it.
    """
    facts = BACKBONES[backbone]
    size = image_size or facts.image_size
    labels = imagenet_labels()
    return Pretrained(
        network=build(backbone, len(labels), size, "imagenet", dropout=0.0),
        labels=labels,
        preprocessing=Preprocessing(width=size, height=size, crop_fraction=size / (size + 32)),
        normalization=facts.normalization,
        weights_sha256=weights_sha256(backbone, "imagenet"),
    )
