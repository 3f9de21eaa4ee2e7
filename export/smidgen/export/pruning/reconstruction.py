"""What reads channels that went is fitted anew, so that it gives what it gave before.

The least-squares step of channel pruning by He, Zhang and Sun 2017 (arXiv:1707.06168), layer after
layer in the network's order: a layer sees what the smaller network gives it, errors before it
included, and is fitted to what it gave in the larger one. It costs seconds and leaves little to
tune. Theirs starts from nothing; here the fit is drawn to the weights that the layer has (ridge
regression), by as much as predicts images best that were not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.graphs.readers import SampleImages, inputs_of, is_reader, matrix_of
from smidgen.export.pruning.dependencies import Dependencies
from smidgen.export.tensorflow_backend import keras

_Matrix = NDArray[np.float64]

_HELD_OUT_EVERY = 4
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths that are tried, in units of the mean variance of the layer's inputs."""


def refit(
    smaller: Any,
    larger: Any,
    dependencies: Dependencies,
    removed: NDArray[np.int64],
    images: SampleImages,
) -> dict[str, float]:
    """Fit the 1x1 convolutions and dense layers of ``smaller`` that read fewer channels, in place.

    An offset goes into the layer's bias, or into the mean of the batch norm behind it. Other kernel
    sizes and strides stay as they are.

    Args:
        smaller: ``remove_channels(larger, dependencies, removed)``.
        larger: functional Keras model, normalised ``(N, H, W, 3) float32`` to logits.
        dependencies: of ``larger``.
        removed: ids of the channels that went, ``(R,) int64``.
        images: what both are compared on.

    Returns:
        By name of each layer that was fitted, in order: the squared error of its outputs on the
        images that were not fitted on, as a share of what it was without the fit; at most 1, since
        a fit that does not help is left away.
    """
    kept = {
        layer.name: ~np.isin(dependencies.leaving[layer.name], removed)
        for layer in smaller.layers
        if is_reader(layer)
        and layer.name in dependencies.entering
        and np.isin(dependencies.entering[layer.name], removed).any()
    }
    if not kept:
        return {}
    wanted = outputs_of(larger, kept, images)
    return {name: _fit(smaller, name, target, images) for name, target in wanted.items()}


def _bias(layer: Any) -> _Matrix | float:
    return np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0


def outputs_of(
    network: Any, kept: Mapping[str, NDArray[np.bool_]], images: SampleImages
) -> dict[str, _Matrix]:
    """For each layer ``(N, P, out)``: what it gives before its activation at the positions."""
    found: dict[str, list[_Matrix]] = {name: [] for name in kept}
    for inputs in inputs_of(network, tuple(kept), images):
        for (name, mask), given in zip(kept.items(), inputs):
            layer = network.get_layer(name)
            outputs = given.astype(np.float64) @ matrix_of(layer) + _bias(layer)
            found[name].append(outputs[..., mask])
    return {name: np.concatenate(batches) for name, batches in found.items()}


def _fit(network: Any, name: str, wanted: _Matrix, images: SampleImages) -> float:
    layer = network.get_layer(name)
    norm = _norm_behind(layer)
    given = np.concatenate([values for (values,) in inputs_of(network, [name], images)])
    problem = LeastSquares.of(given.astype(np.float64), wanted, matrix_of(layer), _bias(layer))
    kernel, offset = problem.best(has_offset=layer.use_bias or norm is not None)
    left = problem.error(kernel, offset)
    before = problem.error(problem.kernel, np.zeros(wanted.shape[-1]))
    layer.kernel.assign(kernel.reshape(layer.kernel.shape).astype(np.float32))
    if layer.use_bias:
        layer.bias.assign((_bias(layer) + offset).astype(np.float32))
    elif norm is not None:
        norm.moving_mean.assign((np.asarray(norm.moving_mean) - offset).astype(np.float32))
    return left / before if before > 0 else 1.0


def _norm_behind(layer: Any) -> Any:
    """The batch norm that alone reads ``layer``, which has no activation; None: there is none."""
    behind = [node.operation for node in layer._outbound_nodes]
    is_norm = len(behind) == 1 and isinstance(behind[0], keras.layers.BatchNormalization)
    is_linear = getattr(layer.activation, "__name__", "linear") == "linear"
    return behind[0] if is_norm and is_linear else None


@dataclass(frozen=True)
class LeastSquares:
    """Rows ``given @ (kernel + change) + offset = wanted``; every fourth image is held out.

    ``given``: ``(R, in)``; ``wanted``: ``(R, out)``; ``kernel``: ``(in, out)``; the same of the
    images held out.
    """

    given: _Matrix
    wanted: _Matrix
    kernel: _Matrix
    given_held_out: _Matrix
    wanted_held_out: _Matrix

    @classmethod
    def of(
        cls, given: _Matrix, wanted: _Matrix, kernel: _Matrix, bias: _Matrix | float
    ) -> LeastSquares:
        """Of ``(N, P, in)`` and ``(N, P, out)``; ``bias`` is that of the layer."""
        out = np.arange(len(given)) % _HELD_OUT_EVERY == 0
        wanted = wanted - bias
        parts = (given[~out], wanted[~out], given[out], wanted[out])
        x, y, x_out, y_out = (part.reshape(-1, part.shape[-1]) for part in parts)
        return cls(x, y, kernel, x_out, y_out)

    def error(self, kernel: _Matrix, offset: _Matrix) -> float:
        """The squared error on the images held out."""
        error = self.given_held_out @ kernel + offset - self.wanted_held_out
        return float(np.square(error).sum())

    def best(self, *, has_offset: bool) -> tuple[_Matrix, _Matrix]:
        """Kernel and offset of the strength that does best on the images held out.

        What there is already stands among them: a fit that does not help is left away.
        """
        x, y = self.given, self.wanted - self.given @ self.kernel
        x_mean = x.mean(axis=0) if has_offset else np.zeros(x.shape[1])
        y_mean = y.mean(axis=0) if has_offset else np.zeros(y.shape[1])
        x = x - x_mean
        values, vectors = np.linalg.eigh(x.T @ x)
        turned = vectors.T @ (x.T @ (y - y_mean))
        unit = max(float(values.mean()), np.finfo(np.float64).tiny)
        nothing = np.zeros(y.shape[1])
        tried = [(self.error(self.kernel, nothing), self.kernel, nothing)]
        for ridge in _RIDGES:
            change = vectors @ (turned / (np.maximum(values, 0) + ridge * unit)[:, None])
            kernel, offset = self.kernel + change, y_mean - x_mean @ change
            tried.append((self.error(kernel, offset), kernel, offset))
        _, kernel, offset = min(tried, key=lambda trial: trial[0])
        return kernel, offset
