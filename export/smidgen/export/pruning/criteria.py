"""How much each channel matters: larger is more.

- ``taylor`` (Molchanov et al. 2019, arXiv:1906.10771): what the loss would change by, to first
  order, if the channel were zero: ``(sum over positions of gradient * value)`` squared, the mean
  over images. The value is the output of the channel's batch norm, so that this is their
  ``(g_gamma * gamma + g_beta * beta)`` squared.
- ``bn-scale`` (Liu et al. 2017, arXiv:1708.06519): the batch norm's absolute scale.
- ``l2`` (Li et al. 2017, arXiv:1608.08710, with their L2 variant): the norm of the channel's
  filters.

The last two here are divided by their mean over the group, since their sizes cannot be compared
between layers. A fourth criterion has a module of its own: ``surgeon``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import PruningError
from smidgen.export.graphs.readers import SampleImages
from smidgen.export.pruning.dependencies import ChannelGroup
from smidgen.export.source import ChannelNormalization
from smidgen.export.tensorflow_backend import keras, tf

Importance = Mapping[str, NDArray[np.float64]]
"""By name of the group: ``(C,) float64``, at least 0, in the order of its channels."""

_NUMBERS_AT_ONCE = 2**26
"""Activations of a batch whose gradients are computed: 256 MB of float32, and as much again."""

_LARGEST_BATCH = 16


@dataclass(frozen=True)
class LabelledPixels:
    """``pixels``: ``(N, H, W, 3) uint8``; ``labels``: ``(N,) int64``."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    normalization: ChannelNormalization

    @property
    def sample(self) -> SampleImages:
        """Without the labels."""
        return SampleImages(self.pixels, self.normalization)


def taylor(network: Any, groups: Sequence[ChannelGroup], images: LabelledPixels) -> Importance:
    """Mean squared first-order change of the cross entropy of single images.

    ``network``: normalised ``(N, H, W, 3) float32`` to logits ``(N, classes) float32``; it works
    with its stored statistics.
    """
    gates = [network.get_layer(group.gate).output for group in groups]
    probe = keras.Model(network.input, [*gates, network.output])
    changes = tf.function(_Changes(probe).of_batch, autograph=False, reduce_retracing=True)
    mean = np.asarray(images.normalization.mean, np.float32)
    std = np.asarray(images.normalization.std, np.float32)
    sums = [np.zeros(len(group.channels)) for group in groups]
    size = _batch_size(network)
    for start in range(0, len(images.labels), size):
        pixels = (images.pixels[start : start + size].astype(np.float32) - mean) / std
        batch = changes(tf.constant(pixels), tf.constant(images.labels[start : start + size]))
        for index, change in enumerate(batch):
            sums[index] += np.square(np.asarray(change, np.float64)).sum(axis=0)
    return {group.name: total / len(images.labels) for group, total in zip(groups, sums)}


def _batch_size(network: Any) -> int:
    shapes = [tensor.shape for op in network.operations for tensor in _flat(op.output)]
    each = sum(math.prod(size or 1 for size in shape[1:]) for shape in shapes)
    return max(1, min(_LARGEST_BATCH, _NUMBERS_AT_ONCE // each))


def _flat(tensors: Any) -> list[Any]:
    flat: list[Any] = keras.tree.flatten(tensors)
    return flat


@dataclass(frozen=True)
class _Changes:
    probe: Any

    def of_batch(self, pixels: Any, labels: Any) -> list[Any]:
        """For each gate ``(n, C)``: the sum of gradient times value of each image."""
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            *values, logits = self.probe(pixels, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses)
        none = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, values, unconnected_gradients=none)
        return [
            tf.reduce_sum(value * gradient, axis=list(range(1, len(value.shape) - 1)))
            for value, gradient in zip(values, gradients)
        ]


def bn_scale(network: Any, groups: Sequence[ChannelGroup]) -> Importance:
    """Absolute scale of each group's last batch norm; groups without one are left out.

    Raises:
        PruningError: no group has a batch norm with a scale.
    """
    norms = {group.name: network.get_layer(group.gate) for group in groups if group.norms}
    found = {
        name: _relative(np.abs(np.asarray(norm.gamma, np.float64)))
        for name, norm in norms.items()
        if norm.scale
    }
    if not found:
        raise PruningError(
            f"{network.name} has no batch norm scale to rank channels by: choose "
            'channels.criterion = "taylor" or "l2"'
        )
    return found


def l2(network: Any, groups: Sequence[ChannelGroup]) -> Importance:
    """L2 norm of the filters that make each channel, of several makers together."""
    found = {}
    for group in groups:
        squares = np.zeros(len(group.channels))
        for name in group.makers:
            kernel = np.asarray(network.get_layer(name).kernel, np.float64)
            squares += np.square(kernel).reshape(-1, kernel.shape[-1]).sum(axis=0)
        found[group.name] = _relative(np.sqrt(squares))
    return found


def _relative(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = float(sizes.mean())
    return sizes / mean if mean > 0 else sizes
