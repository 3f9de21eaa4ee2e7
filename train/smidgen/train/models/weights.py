"""Filling a freshly built network with weights from a file (found by ``weights_file``)."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from smidgen.train.errors import WeightsMismatch, WeightsMissing
from smidgen.train.models.backbones import BACKBONES, Backbone, BackboneName
from smidgen.train.models.efficientnet_lite import blocks, build_network
from smidgen.train.models.torch_pickle import read_state_dict
from smidgen.train.models.weights_file import weights_path

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def build(
    backbone: BackboneName, classes: int, image_size: int, weights: str, dropout: float
) -> Any:
    """The network of ``backbone`` for ``classes``, as a ``keras.Model`` from pixels to logits.

    Args:
        backbone: a key of ``BACKBONES``.
        classes: outputs; the head gets weights only where the file has one for as many classes.
        image_size: side of the square input in pixels.
        weights: ``imagenet`` (the package of the table), ``none``, or the path of a ``.pth`` state
            dict or of a ``.keras`` model that smidgen saved.
        dropout: share of features dropped in training.

    Raises:
        WeightsMissing, WeightsUnsafe, WeightsMismatch: the weights cannot be used.
    """
    network = build_network(BACKBONES[backbone], classes, image_size, dropout)
    path = weights_path(backbone, weights)
    if path is None:
        return network
    if path.suffix == ".keras":
        _copy_from_keras(network, path)
    else:
        _assign(network, _from_torch(read_state_dict(path), BACKBONES[backbone], path), path)
    return network


def _torch_names(backbone: Backbone) -> Iterator[tuple[str, str]]:
    """Pairs (our layer, prefix in the torch state dict) for every layer that has weights."""
    yield from (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"))
    for index, block in enumerate(blocks(backbone)):
        ours, theirs = f"block_{index:02d}", f"_blocks.{index}"
        if block.expansion != 1:
            yield f"{ours}_expand_conv", f"{theirs}._expand_conv"
            yield f"{ours}_expand_bn", f"{theirs}._bn0"
        yield f"{ours}_depthwise_conv", f"{theirs}._depthwise_conv"
        yield f"{ours}_depthwise_bn", f"{theirs}._bn1"
        yield f"{ours}_project_conv", f"{theirs}._project_conv"
        yield f"{ours}_project_bn", f"{theirs}._bn2"
    yield from (("head_conv", "_conv_head"), ("head_bn", "_bn1"), ("logits", "_fc"))


def _from_torch(
    state: Mapping[str, np.ndarray], backbone: Backbone, path: Path
) -> dict[str, list[np.ndarray]]:
    """Keras' arrays per layer; every tensor of the file must be used (but the step counters)."""
    unused = {name for name in state if not name.endswith("num_batches_tracked")}
    result: dict[str, list[np.ndarray]] = {}
    for layer, prefix in _torch_names(backbone):
        if layer.endswith("_bn"):
            names = [f"{prefix}.{suffix}" for suffix in _BATCH_NORM]
        elif layer == "logits":
            names = [f"{prefix}.weight", f"{prefix}.bias"]
        else:
            names = [f"{prefix}.weight"]
        missing = [name for name in names if name not in state]
        if missing:
            raise WeightsMismatch(f"{path} has no tensor {missing[0]}; is it another network?")
        unused.difference_update(names)
        result[layer] = [_transposed(layer, state[name]) for name in names]
    if unused:
        raise WeightsMismatch(
            f"{path} has {len(unused)} tensors that the network does not ({min(unused)}); is it "
            "another network?"
        )
    return result


def _transposed(layer: str, array: np.ndarray) -> np.ndarray:
    """torch's order of axes to Keras': OIHW to HWIO, depthwise C1HW to HWC1, OI to IO."""
    if array.ndim == 4:
        return array.transpose(2, 3, 0, 1) if "depthwise" in layer else array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def _assign(network: Any, arrays: Mapping[str, list[np.ndarray]], path: Path) -> None:
    """Set each layer's weights; the head only if the number of classes is the same."""
    for layer in network.layers:
        if not layer.weights:
            continue
        given = arrays.get(layer.name)
        if given is None:
            raise WeightsMismatch(f"{path} has no weights for {layer.name}; is it another network?")
        expected = [tuple(weight.shape) for weight in layer.weights]
        shapes = [array.shape for array in given]
        if layer.name == "logits" and shapes != expected:
            continue
        if shapes != expected:
            raise WeightsMismatch(
                f"{path}: {layer.name} has the shapes {shapes}, the network {expected}; is it "
                "another network?"
            )
        layer.set_weights(given)


def _copy_from_keras(network: Any, path: Path) -> None:
    model = load_network(path)
    _assign(network, {layer.name: layer.get_weights() for layer in model.layers}, path)


def load_network(path: str | os.PathLike[str]) -> Any:
    """A saved network, ready to be called. Raises WeightsMissing or WeightsMismatch."""
    if not Path(path).is_file():
        raise WeightsMissing(f"no model file {path}")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsMismatch(f"{path} is not a Keras model that can be loaded: {line}") from error
