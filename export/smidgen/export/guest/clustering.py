"""Weight clustering by tfmot: each kernel keeps few distinct weights, so that the file zips well.

After Han et al. 2016, "Deep Compression": weights take few values, and the values and the weights
behind them are tuned. Kernels are spread first (see ``spreading``). The values start evenly spaced
and the weights of a kernel go to them together, so that their errors cancel in its outputs (see
``quantization.rounding``), not each to the nearest; their mean error goes into the bias. Depthwise
kernels stay as they are: they are few, and clustering them costs too much, as tfmot says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import StructureError
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.graphs.readers import SampleImages, inputs_of, is_reader, matrix_of
from smidgen.export.guest.adapter import GuestNetwork, plan, tune
from smidgen.export.guest.copier import copy_to_guest
from smidgen.export.guest.layers import OWN_FUNCTIONS
from smidgen.export.guest.room import tf_keras, tfmot
from smidgen.export.guest.selection import large_kernels
from smidgen.export.guest.spreading import SUFFIX, can_be_spread, spread
from smidgen.export.guest.structure import structure_of
from smidgen.export.pruning.reconstruction import LeastSquares, outputs_of
from smidgen.export.quantization.rounding import rounded_together
from smidgen.export.recipe import ClusteringRecipe
from smidgen.export.tensorflow_backend import captured_output, tf
from smidgen.export.workshop import PassResult, TuningWish, Workshop

_IMAGES = 256

FEWEST = 3
"""One value for each sign, and zero."""


def cluster(network: Any, settings: ClusteringRecipe, workshop: Workshop) -> PassResult:
    """``network`` with batch norms folded and few distinct weights in each output channel.

    The weights of one kernel, each divided by the largest of its channel, take at most
    ``settings.clusters`` values. Where the network is sparse its zeros stay where they are, and
    zero is one of the values.

    Args:
        network: functional Keras 3: normalised ``(N, H, W, 3) float32`` to logits.
        settings: the number of values and the tuning.
        workshop: its tuner trains; its source is the teacher.

    Returns:
        A Keras 3 network of the same answers up to the clustering, without foldable batch norms.

    Raises:
        CopyError: a layer cannot be copied to tf_keras.
        StructureError: fewer than 3 clusters asked for, nothing to cluster, or more values left.
        SourceError: there are no training images, or they changed.
    """
    if settings.clusters < FEWEST:
        raise StructureError(
            f"clustering.clusters = {settings.clusters}: expected 0 (off) or at least {FEWEST}"
        )
    folded = fold_batch_norms(network).model
    names = clusterable(folded)
    if not names:
        raise StructureError(
            "no layer of this network can be clustered: expected an ordinary convolution or dense "
            "layer; set clustering.clusters = 0"
        )
    is_sparse = structure_of(network).is_sparse
    wide = spread(folded, names)
    _round_together(wide, names, _odd(settings.clusters), workshop)
    wide = _tuned(wide, names, settings, workshop, is_sparse)
    result = fold_batch_norms(wide).model
    counts = [_check(result.get_layer(name), settings.clusters) for name in names]
    facts = {
        "clusters": f"{max(counts)} values in each of {len(counts)} kernels",
        "validation top-1": f"{100 * workshop.tuner.validation_top1(result):.2f} %",
    }
    return PassResult(result, facts)


def _odd(count: int) -> int:
    """Evenly spaced values of both signs and zero."""
    return count - 1 + count % 2


def _round_together(wide: Any, names: tuple[str, ...], count: int, workshop: Workshop) -> None:
    """Let the kernels of the spread network take ``count`` values -1..1, in place.

    Layer after layer: each is first fitted to give what it gave before for what it gets now, from
    the layers before it that are clustered already, and then rounded.
    """
    readers = [name for name in names if is_reader(wide.get_layer(name))]
    pixels, _ = workshop.tuner.batches(_IMAGES)
    images = SampleImages(pixels, workshop.source.normalization)
    all_outputs = {name: np.ones(wide.get_layer(name).kernel.shape[-1], bool) for name in readers}
    workshop.progress.start("cluster layers", len(readers))
    for name, wanted in outputs_of(wide, all_outputs, images).items():
        layer, norm = wide.get_layer(name), wide.get_layer(name + SUFFIX)
        given = np.concatenate([batch for (batch,) in inputs_of(wide, [name], images)])
        kernel, offset = _few_values(given.astype(np.float64), wanted, matrix_of(layer), count // 2)
        layer.kernel.assign(kernel.reshape(layer.kernel.shape).astype(np.float32))
        ranges, bias, *rest = norm.get_weights()
        norm.set_weights([ranges, bias + ranges * offset, *rest])
        workshop.progress.advance(1)
    workshop.progress.finish()


def _few_values(
    given: NDArray[np.float64], wanted: NDArray[np.float64], kernel: NDArray[np.float64], half: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A kernel of the values ``-half..half`` by ``half``, and an offset of its outputs.

    ``given``: ``(N, P, in)``; ``wanted``: ``(N, P, out)``; ``kernel``: ``(in, out)``, in -1..1.
    Weights of -1, 0 and 1 stay: the channel's range, and what is sparse.
    """
    problem = LeastSquares.of(given, wanted, kernel, 0.0)
    fitted, _ = problem.best(has_offset=True)
    fitted = np.where((kernel == 0) | (np.abs(kernel) == 1), kernel, np.clip(fitted, -1, 1))
    rows = given.reshape(-1, given.shape[-1])
    covariance = np.cov(rows.T, bias=True)
    codes = rounded_together(fitted.T[np.newaxis] * half, covariance[np.newaxis], half)
    rounded = np.where(np.abs(kernel) == 1, kernel, codes[0].T / half)
    mean = (wanted.reshape(-1, wanted.shape[-1]) - rows @ rounded).mean(axis=0)
    return rounded, mean


def _tuned(
    wide: Any,
    names: tuple[str, ...],
    settings: ClusteringRecipe,
    workshop: Workshop,
    is_sparse: bool,
) -> Any:
    """The spread Keras 3 network ``wide`` with clustered kernels, tuned."""
    copy = copy_to_guest(wide)
    with captured_output():
        guest = _wrapped(copy.model, names, _odd(settings.clusters), is_sparse)
    wish = TuningWish("clustering", plan(settings.epochs, settings.learning_rate, "best"))
    tune(GuestNetwork(guest, "frozen"), wish, workshop)
    for layer in guest.layers:
        inner = getattr(layer, "layer", layer)
        arrays = [_clustered(layer)] if inner is not layer else inner.get_weights()
        copy.model.get_layer(inner.name).set_weights(arrays)
    return copy.give_back(copy.model, wide)


def clusterable(folded: Any) -> tuple[str, ...]:
    """Names of the layers of a folded Keras 3 network that are clustered, in its order."""
    large = {name for name, _ in large_kernels(copy_to_guest(folded).model)}
    return tuple(x.name for x in folded.layers if x.name in large and can_be_spread(x))


def starting_values(
    weights: NDArray[np.float32], count: int, *, has_zero: bool
) -> NDArray[np.float32]:
    """``count`` values (odd) near to weights in -1..1 of any shape, ascending ``float32``.

    Evenly spaced, then each moved to the mean of the weights that are nearest to it. For a file
    that is zipped this beats k-means: at the same entropy of the codes evenly spaced values err
    less (Gish and Pierce 1968). The outermost two are made equal in size, so that each channel
    that has either of them has the same range. With ``has_zero`` the one in the middle is zero,
    and weights that are zero do not count.
    """
    values = np.linspace(-1, 1, count)
    flat = np.sort(weights[weights != 0].ravel() if has_zero else weights.ravel()).astype(float)
    total = np.concatenate([[0.0], np.cumsum(flat)])
    edges = np.searchsorted(flat, (values[1:] + values[:-1]) / 2)
    ends = np.concatenate([[0], edges, [len(flat)]])
    sizes = np.diff(ends)
    values = np.where(sizes > 0, np.diff(total[ends]) / np.maximum(sizes, 1), values)
    values[[0, -1]] = np.array([-1, 1]) * np.abs(values[[0, -1]]).mean()
    if has_zero:
        values[len(values) // 2] = 0
    return values.astype(np.float32)


def _wrapped(model: Any, names: tuple[str, ...], count: int, is_sparse: bool) -> Any:
    kind = tfmot.clustering.keras
    how: dict[str, Any] = {
        "number_of_clusters": count,
        "cluster_centroids_init": kind.CentroidInitialization.LINEAR,
        "preserve_sparsity": is_sparse,
    }

    def twin(layer: Any) -> Any:
        new = type(layer).from_config(layer.get_config())
        if layer.name not in names:
            return new
        # tfmot looks at the kernel when it wraps
        new.build(layer.input_shape)
        new.set_weights(layer.get_weights())
        return kind.cluster_weights(new, **how)

    with tf_keras.utils.custom_object_scope(OWN_FUNCTIONS):
        guest = tf_keras.models.clone_model(model, clone_function=twin)
    for layer in guest.layers:
        if isinstance(layer, tf_keras.layers.Wrapper):
            kernel = model.get_layer(layer.layer.name).get_weights()[0]
            _start(layer, starting_values(kernel, count, has_zero=is_sparse), kernel, is_sparse)
        else:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return guest


def _start(
    wrapper: Any, values: NDArray[np.float32], kernel: NDArray[np.float32], is_sparse: bool
) -> None:
    """Let a wrapper start from ``values``; what tfmot derived from its own start goes with them."""
    wrapper.cluster_centroids["kernel"].assign(values)
    wrapper.original_clusterable_weights["kernel"].assign(kernel)
    if is_sparse:
        wrapper.sparsity_masks["kernel"] = tf.constant(kernel != 0, tf.float32)
        wrapper.zero_idx["kernel"] = tf.constant(int(np.abs(values).argmin()), tf.int64)


def _clustered(wrapper: Any) -> NDArray[np.float32]:
    """The kernel of a wrapper, each weight one of its values."""
    kernel = np.asarray(wrapper.original_clusterable_weights["kernel"])
    values = np.sort(np.asarray(wrapper.cluster_centroids["kernel"]))
    if "kernel" in wrapper.sparsity_masks:
        kernel = kernel * np.asarray(wrapper.sparsity_masks["kernel"])
        values[np.abs(values).argmin()] = 0
    values[[0, -1]] = np.array([-1, 1]) * np.abs(values[[0, -1]]).mean()
    nearest = np.searchsorted((values[1:] + values[:-1]) / 2, kernel.ravel())
    return values[nearest].reshape(kernel.shape).astype(np.float32)


def _check(layer: Any, allowed: int) -> int:
    """How many distinct weights a channel has at most. Raises StructureError for more."""
    kernel = layer.get_weights()[0]
    channels = kernel.reshape(-1, kernel.shape[-1]).T
    most = max(len(np.unique(channel)) for channel in channels)
    if most > allowed:
        raise StructureError(
            f"clustering of layer {layer.name} left {most} distinct weights in a channel, expected "
            f"{allowed}: report this with the recipe"
        )
    return most
