"""Integer kernels and biases for all layers of a paired graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from smidgen.export.quantization.moments import PatchMoments
from smidgen.export.quantization.numbers import (
    Kernel,
    rounded_kernel,
    set_bias,
    set_kernel,
)
from smidgen.export.quantization.pairing import Pair, PairedGraph, along
from smidgen.export.quantization.rounding import rounded_together
from smidgen.export.recipe import QuantizationRecipe

_CLUSTERED = 256
"""A kernel with at most this many distinct weights, and more weights than that, is clustered."""

_SAME = 1e-5
"""Weights by the largest of their channel that are nearer than this are the same value."""


def quantize_kernels(
    graph: PairedGraph,
    moments: Mapping[int, PatchMoments],
    settings: QuantizationRecipe,
    *,
    to_nearest: bool = False,
) -> None:
    """Set each kernel, and with it the bias, in the integer graph. Activation codes come first.

    With ``bias_correction`` the mean that the kernel's rounding adds to each output channel on
    the calibration images is taken out of the bias (Nagel et al. 2019, arXiv:1906.04721, section
    4.2, with the means measured); the kernel is then rounded for least variance, otherwise for
    least mean square. ``to_nearest``: weight by weight, which is faster.
    """
    for pair in graph.pairs:
        if pair.is_weighted:
            seen = moments.get(pair.position)
            kernel = quantized_kernel(graph, pair, None if to_nearest else seen, settings)
            set_kernel(graph, pair, kernel)
            set_bias(graph, pair, kernel, _bias(graph, pair, kernel, seen, settings))


def quantized_kernel(
    graph: PairedGraph,
    pair: Pair,
    moments: PatchMoments | None,
    settings: QuantizationRecipe,
) -> Kernel:
    """The int8 kernel of one layer; rounded to nearest where moments are few or it is clustered."""
    weights = graph.kernel(pair)
    kernel = rounded_kernel(
        weights, pair.kernel_axis, per_channel=settings.weight_scales == "per-channel"
    )
    if moments is None or not moments.is_enough or is_clustered(weights, pair.kernel_axis):
        return kernel
    exact = (weights / along(kernel.scale, pair.kernel_axis, weights.ndim)).astype(np.float64)
    spread = moments.covariance if settings.bias_correction else moments.second_moment
    codes = rounded_together(as_rows(pair, exact), spread)
    return Kernel(as_kernel(pair, codes, weights.shape).astype(np.int8), kernel.scale)


def is_clustered(weights: NDArray[np.float32], axis: int) -> bool:
    """Whether a kernel has few distinct weights for its size, so that they should stay few.

    Weights count by the largest of their channel (``axis``): folded batch norms have scaled each
    channel by a factor of its own.
    """
    if weights.size <= 4 * _CLUSTERED:
        return False
    others = tuple(place for place in range(weights.ndim) if place != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    values = np.unique(weights / np.where(largest > 0, largest, 1.0))
    return 1 + int((np.diff(values) > _SAME).sum()) <= _CLUSTERED


def as_rows(pair: Pair, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """A kernel as ``(groups, rows, taps)``, the groups and taps being those of its patches."""
    if pair.kind == "DEPTHWISE_CONV_2D":
        return weights.reshape(-1, weights.shape[3]).T[:, np.newaxis]
    return weights.reshape(1, weights.shape[0], -1)


def as_kernel(pair: Pair, rows: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The inverse of ``as_rows``."""
    return rows[:, 0].T.reshape(shape) if pair.kind == "DEPTHWISE_CONV_2D" else rows.reshape(shape)


def _bias(
    graph: PairedGraph,
    pair: Pair,
    kernel: Kernel,
    moments: PatchMoments | None,
    settings: QuantizationRecipe,
) -> NDArray[np.float64]:
    weights, bias = graph.kernel(pair), graph.bias(pair)
    exact = np.zeros(weights.shape[pair.kernel_axis]) if bias is None else bias.astype(np.float64)
    if moments is None or not settings.bias_correction:
        return exact
    lost = (weights - kernel.dequantized(pair.kernel_axis)).astype(np.float64)
    shift: NDArray[np.float64] = np.einsum("grt,gt->gr", as_rows(pair, lost), moments.mean)
    return exact + shift.ravel()
