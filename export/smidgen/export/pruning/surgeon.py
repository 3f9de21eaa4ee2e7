"""The importance of channels whose readers are fitted anew: what cannot be made good.

A channel that others can stand in for costs nothing, however much it says. So the importance of
channel j to a layer that reads it by the weights ``w_j`` is the least squared error of that layer's
outputs without it, all other weights fitted anew: ``w_j ** 2 / inverse(covariance)[j, j]`` (Optimal
Brain Surgeon: Hassibi and Stork 1993), of whole channels (as in ZipLM: Kurtic et al. 2023,
arXiv:2302.04089), one after the other with the inverse brought up to date (Frantar and Alistarh
2022, arXiv:2208.11580). Errors of different outputs and layers are added up in units of the loss:
each times the expected squared derivative of the log likelihood of the network's own answers, the
diagonal of Fisher's information (as in Theis et al. 2018, arXiv:1801.05787).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.graphs.readers import SampleImages, covariances_of, is_reader, matrix_of
from smidgen.export.pruning.criteria import Importance
from smidgen.export.pruning.dependencies import ChannelGroup, Dependencies
from smidgen.export.tensorflow_backend import keras, tf

_Matrix = NDArray[np.float64]

_DAMPING = 1e-2
"""Share of the mean variance that is added to each: few images, many channels."""


def unranked(network: Any, dependencies: Dependencies) -> tuple[str, ...]:
    """Names of the groups that a layer reads which ``refit`` cannot fit, such as a 3x3 kernel."""
    readers = _readers(network, dependencies)
    return tuple(name for name, layers in readers.items() if not layers)


def surgeon(network: Any, dependencies: Dependencies, images: SampleImages) -> Importance:
    """What the loss rises by at least, in nats, when a channel goes after all less important ones.

    Args:
        network: functional Keras model, normalised ``(N, H, W, 3) float32`` to logits.
        dependencies: of ``network``. Groups in ``unranked`` are left out.
        images: whose inputs of layers the covariances are of; no labels are needed.
    """
    readers = {name: names for name, names in _readers(network, dependencies).items() if names}
    names = tuple(dict.fromkeys(name for layers in readers.values() for name in layers))
    if not names:
        return {}
    covariances = covariances_of(network, names, images)
    curvatures = _curvatures(network, names, images)
    found = {}
    for group in dependencies.groups:
        parts = []
        for name in readers.get(group.name, ()):
            place = {int(c): i for i, c in enumerate(dependencies.entering[name])}
            rows = np.array([place[int(channel)] for channel in group.channels])
            weights = matrix_of(network.get_layer(name))[rows] * np.sqrt(curvatures[name])
            parts.append((weights, _inverse_of(covariances[name], rows)))
        if parts:
            found[group.name] = _lost_in_turn(parts)
    return found


def _readers(network: Any, dependencies: Dependencies) -> dict[str, tuple[str, ...]]:
    """By name of the group the layers that sum over its channels; none where one cannot be fitted.

    A layer that multiplies a channel by something (a gate) or hands it on reads nothing.
    """
    return {group.name: _readers_of(group, network, dependencies) for group in dependencies.groups}


def _readers_of(group: ChannelGroup, network: Any, dependencies: Dependencies) -> tuple[str, ...]:
    names = []
    for layer in network.layers:
        entering = dependencies.entering.get(layer.name)
        is_sum = isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)) and not isinstance(
            layer, keras.layers.DepthwiseConv2D
        )
        if entering is None or not is_sum or not np.isin(entering, group.channels).any():
            continue
        if not is_reader(layer) or len(np.unique(entering)) < len(entering):
            return ()
        names.append(layer.name)
    return tuple(names)


def _curvatures(
    network: Any, names: Sequence[str], images: SampleImages
) -> Mapping[str, NDArray[np.float64]]:
    """For each layer ``(out,)``: the mean over images of the squared derivatives, summed over
    positions. An activation inside a layer counts as the identity."""
    probe = keras.Model(
        network.input, [*(network.get_layer(name).output for name in names), network.output]
    )

    def squares(pixels: Any, seed: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            *values, logits = probe(pixels, training=False)
            answers = tf.random.stateless_categorical(logits, 1, seed)[:, 0]
            loss = tf.reduce_sum(
                tf.nn.sparse_softmax_cross_entropy_with_logits(tf.stop_gradient(answers), logits)
            )
        none = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, values, unconnected_gradients=none)
        return [tf.reduce_sum(tf.square(g), axis=list(range(len(g.shape) - 1))) for g in gradients]

    run = tf.function(squares, autograph=False, reduce_retracing=True)
    sums = [np.zeros(())] * len(names)
    for number, pixels in enumerate(images.batches()):
        batch = run(tf.constant(pixels), tf.constant([0, number]))
        sums = [total + np.asarray(part, np.float64) for total, part in zip(sums, batch)]
    return {name: total / len(images.pixels) for name, total in zip(names, sums)}


def _inverse_of(covariance: _Matrix, rows: NDArray[np.int64]) -> _Matrix:
    """Of the damped covariance; those rows and columns."""
    mean = max(float(np.diag(covariance).mean()), np.finfo(np.float64).tiny)
    inverse = np.linalg.inv(covariance + _DAMPING * mean * np.eye(len(covariance)))
    return np.asarray(inverse[np.ix_(rows, rows)], np.float64)


def _lost_in_turn(parts: Sequence[tuple[_Matrix, _Matrix]]) -> NDArray[np.float64]:
    """For each channel ``(C,)``: what is lost when it goes, the least important one first.

    ``parts``: of each reader its weights ``(C, out)`` and inverse covariance ``(C, C)``; both are
    brought up to date in place as channels go. Never less than what went before lost, so that the
    order by importance is the order in which they went.
    """
    count = len(parts[0][0])
    lost, alive, most = np.zeros(count), np.ones(count, bool), 0.0
    for turn in range(count):
        scores = sum(
            np.square(weights).sum(axis=1) / np.maximum(np.diag(inverse), 1e-300)
            for weights, inverse in parts
        )
        gone = int(np.where(alive, scores, np.inf).argmin())
        most = max(most, float(np.asarray(scores)[gone]))
        lost[gone] = most * (1 + 1e-12 * turn)
        alive[gone] = False
        for weights, inverse in parts:
            column = inverse[:, gone] / inverse[gone, gone]
            np.subtract(weights, np.outer(column, weights[gone]), out=weights)
            np.subtract(inverse, np.outer(column, inverse[gone]), out=inverse)
            weights[gone] = inverse[gone] = inverse[:, gone] = 0
    return 0.5 * lost
