"""``build``: the network that a recipe asks for, one backbone or several, with a head."""

from __future__ import annotations

from typing import Any

import keras

from smidgen.train.models import efficientnet_lite, keras_applications
from smidgen.train.models.backbones import BACKBONES, BackboneName, Lite
from smidgen.train.models.facts import backbones_of, check_model
from smidgen.train.models.heads import logits_of
from smidgen.train.models.weights import fill
from smidgen.train.recipe import ModelRecipe

FEATURES = "features"
POOL = "pool"


def build(model: ModelRecipe, classes: int, image_size: int) -> Any:
    """The network of ``model`` as a functional ``keras.Model`` without nested models.

    Input ``image``: ``(N, image_size, image_size, 3) float32``, RGB pixels under
    ``facts.normalization_of(model)``.
    Output ``logits``: ``(N, classes) float32``; ``(N, 1)`` where the output is binary.

    An ensemble takes pixels 0..255, normalises them for each backbone, and concatenates the pooled
    features; its layers are named after the backbone, as ``resnet50_conv1_conv``.

    Args:
        model: backbones, weights, head and output.
        classes: how many; the head gets weights only where the file has one for as many.
        image_size: side of the square input in pixels.

    Raises:
        SchemaError: see ``check_model``.
        WeightsMissing, WeightsUnsafe, WeightsMismatch: the weights cannot be used.
    """
    check_model(model, classes, image_size)
    image = keras.Input((image_size, image_size, 3), name="image", dtype="float32")
    if model.ensemble:
        branches = [_branch(name, image) for name in backbones_of(model)]
        features = keras.layers.Concatenate(name=FEATURES)(branches)
    else:
        features = _pooled(model.backbone, image, prefix="")
    network = keras.Model(image, logits_of(features, model, classes), name="smidgen")
    fill(network, model)
    return network


def _branch(name: BackboneName, pixels: Any) -> Any:
    """Pooled features of one network of an ensemble, from pixels 0..255."""
    how = BACKBONES[name].normalization
    normalize = keras.layers.Rescaling(list(how.scale), list(how.offset), name=f"{name}_normalize")
    return _pooled(name, pixels, f"{name}_", normalize)


def _pooled(name: BackboneName, image: Any, prefix: str, normalize: Any = None) -> Any:
    builder = BACKBONES[name].builder
    if isinstance(builder, Lite):
        start = image if normalize is None else normalize(image)
        x = efficientnet_lite.feature_map(builder, start, prefix)
    else:
        x = keras_applications.feature_map(builder, image, prefix, normalize)
    return keras.layers.GlobalAveragePooling2D(name=f"{prefix}{POOL}")(x)
