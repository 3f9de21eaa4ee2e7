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
from smidgen.train.models.backbones import BACKBONES, Application, BackboneName, Lite
from smidgen.train.models.efficientnet_lite import blocks
from smidgen.train.models.facts import backbones_of
from smidgen.train.models.heads import HEAD_LAYERS, one_logit
from smidgen.train.models.keras_applications import published_weights, read_weights
from smidgen.train.models.torch_pickle import read_state_dict
from smidgen.train.models.weights_file import weights_path
from smidgen.train.recipe import ModelRecipe

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def fill(network: Any, model: ModelRecipe) -> None:
    """Give a freshly built ``network`` the weights that ``model`` starts from.

    Raises:
        WeightsMissing, WeightsUnsafe, WeightsMismatch: they cannot be used.
    """
    if model.weights == "none":
        return
    arrays: dict[str, list[np.ndarray]] = {}
    for backbone in backbones_of(model):
        prefix = f"{backbone}_" if model.ensemble else ""
        start = _start(backbone, model)
        arrays.update({prefix + layer: given for layer, given in start.items()})
    if model.output == "binary" and arrays.get("logits", [np.empty(0)])[0].shape[-1] == 2:
        arrays["logits"] = one_logit(arrays["logits"])
    _assign(network, arrays, model.weights)


def _start(backbone: BackboneName, model: ModelRecipe) -> dict[str, list[np.ndarray]]:
    """Keras' arrays by layer, under the names that the layers have in a network of their own."""
    facts = BACKBONES[backbone]
    path = weights_path(backbone, model.weights)
    if path is None:
        assert isinstance(facts.builder, Application)
        with_logits = model.head == "linear" and not model.ensemble
        return published_weights(facts, facts.builder, with_logits)
    if path.suffix == ".keras":
        return {layer.name: layer.get_weights() for layer in load_network(path).layers}
    if isinstance(facts.builder, Lite):
        return _from_torch(read_state_dict(path), facts.builder, path)
    return read_weights(path, facts, facts.builder)


def _torch_names(lite: Lite) -> Iterator[tuple[str, str]]:
    """Pairs (our layer, prefix in the torch state dict) for every layer that has weights."""
    yield from (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"))
    for index, block in enumerate(blocks(lite)):
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
    state: Mapping[str, np.ndarray], lite: Lite, path: Path
) -> dict[str, list[np.ndarray]]:
    """Keras' arrays per layer; every tensor of the file must be used (but the step counters)."""
    unused = {name for name in state if not name.endswith("num_batches_tracked")}
    result: dict[str, list[np.ndarray]] = {}
    for layer, prefix in _torch_names(lite):
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


def _assign(network: Any, arrays: Mapping[str, list[np.ndarray]], source: str) -> None:
    """Set each layer's weights; those of the head only where there are some of the same shapes."""
    for layer in network.layers:
        if not layer.weights:
            continue
        given = arrays.get(layer.name)
        expected = [tuple(weight.shape) for weight in layer.weights]
        shapes = None if given is None else [array.shape for array in given]
        if given is not None and shapes == expected:
            layer.set_weights(given)
        elif layer.name in HEAD_LAYERS:
            continue
        elif given is None:
            raise WeightsMismatch(
                f"{source} has no weights for {layer.name}; is it another network?"
            )
        else:
            raise WeightsMismatch(
                f"{source}: {layer.name} has the shapes {shapes}, the network {expected}; is it "
                "another network?"
            )


def load_network(path: str | os.PathLike[str]) -> Any:
    """A saved network, ready to be called. Raises WeightsMissing or WeightsMismatch."""
    if not Path(path).is_file():
        raise WeightsMissing(f"no model file {path}")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsMismatch(f"{path} is not a Keras model that can be loaded: {line}") from error
