"""EfficientNet-Lite as a Keras functional graph from normalised pixels to a feature map.

Layer names are stable: ``stem_conv``, ``block_00_depthwise_conv`` ..., ``head_conv``; recipes name
blocks by them and saved weights are found by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from smidgen.train.models.backbones import Lite

_BN_EPSILON = 1e-3
_BN_MOMENTUM = 0.99
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_CHANNEL_DIVISOR = 8


@dataclass(frozen=True)
class Block:
    """One inverted bottleneck: expand 1x1, depthwise kernel x kernel, project 1x1."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int

    @property
    def is_residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.channels_in == self.channels_out


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def blocks(lite: Lite) -> tuple[Block, ...]:
    """The blocks in order, with widths and repeats scaled as ``lite`` says."""
    result: list[Block] = []
    channels_in = _STEM_CHANNELS
    for index, stage in enumerate(_STAGES):
        is_fixed = index in (0, len(_STAGES) - 1)
        repeats = stage.repeats if is_fixed else math.ceil(stage.repeats * lite.depth)
        channels = round_channels(stage.channels, lite.width)
        for repeat in range(repeats):
            stride = stage.stride if repeat == 0 else 1
            result.append(Block(stage.kernel, stride, stage.expansion, channels_in, channels))
            channels_in = channels
    return tuple(result)


def round_channels(channels: int, width: float) -> int:
    """``channels * width`` to the nearest multiple of 8, never more than 10 % below."""
    scaled = channels * width
    divisor = _CHANNEL_DIVISOR
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def feature_map(lite: Lite, image: Any, prefix: str = "") -> Any:
    """The network on the Keras tensor ``image``, with fresh weights and no head.

    Args:
        lite: how it is scaled.
        image: ``(N, S, S, 3) float32``, normalised pixels.
        prefix: put before the name of each layer.

    Returns:
        The Keras tensor ``(N, ceil(S / 32), ceil(S / 32), 1280) float32``.
    """
    x = _relu6(_conv_bn(image, _STEM_CHANNELS, 3, 2, f"{prefix}stem"), f"{prefix}stem")
    for index, block in enumerate(blocks(lite)):
        x = _block(x, block, f"{prefix}block_{index:02d}")
    return _relu6(_conv_bn(x, _HEAD_CHANNELS, 1, 1, f"{prefix}head"), f"{prefix}head")


def _block(x: Any, block: Block, name: str) -> Any:
    shortcut = x
    if block.expansion != 1:
        x = _conv_bn(x, block.channels_in * block.expansion, 1, 1, f"{name}_expand")
        x = _relu6(x, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        block.kernel,
        block.stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_conv_init(),
        name=f"{name}_depthwise_conv",
    )(x)
    x = _relu6(_batch_norm(x, f"{name}_depthwise"), f"{name}_depthwise")
    x = _conv_bn(x, block.channels_out, 1, 1, f"{name}_project")
    return keras.layers.Add(name=f"{name}_add")([shortcut, x]) if block.is_residual else x


def _conv_bn(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    x = keras.layers.Conv2D(
        channels,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_conv_init(),
        name=f"{name}_conv",
    )(x)
    return _batch_norm(x, name)


def _batch_norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(
        epsilon=_BN_EPSILON, momentum=_BN_MOMENTUM, name=f"{name}_bn"
    )(x)


def _relu6(x: Any, name: str) -> Any:
    return keras.layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x)


def _conv_init() -> Any:
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
