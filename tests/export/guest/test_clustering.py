"""Few distinct weights: in the float network, in each channel, and in the int8 file."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from smidgen.export.errors import StructureError
from smidgen.export.recipe import ClusteringRecipe, SparsityRecipe


@pytest.mark.parametrize("clusters", [4, 7])
def test_each_kernel_has_few_values(workshop, kernels_of, clusters):
    from smidgen.export.guest.clustering import cluster
    from smidgen.export.guest.structure import values_of

    shop = workshop(3)
    network = shop.source.load()
    result = cluster(network, ClusteringRecipe(clusters=clusters, epochs=1), shop)
    assert len(set(shop.tuner.losses)) == 3, "it is trained"
    for name, kernel in kernels_of(result.network).items():
        assert len(values_of(kernel)) <= clusters, name
        for channel in kernel.reshape(-1, kernel.shape[-1]).T:
            assert 2 <= len(np.unique(channel)) <= clusters
    depthwise = next(x for x in result.network.layers if "Depthwise" in type(x).__name__)
    depthwise = depthwise.get_weights()[0]
    assert len(np.unique(depthwise)) == depthwise.size
    assert len(values_of(kernels_of(network)["logits"])) > 100, "the source has many"
    assert not [x for x in result.network.layers if "normalization" in x.name], "folded"


@pytest.mark.slow
def test_more_clusters_are_nearer_to_the_float_network(workshop):
    from smidgen.export.guest.clustering import cluster

    shop = workshop(0)
    network = shop.source.load()
    expected = np.asarray(network(shop.tuner.inputs))
    errors = []
    for clusters in (4, 16, 64):
        settings = ClusteringRecipe(clusters=clusters, epochs=0)
        result = cluster(network, settings, shop)
        got = np.asarray(result.network(shop.tuner.inputs))
        errors.append(np.abs(got - expected).mean() / expected.std())
    assert errors[0] > errors[1] > errors[2]


def test_kernels_are_clustered_together_and_not_each_weight_to_the_nearest(workshop):
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.guest.clustering import cluster, clusterable
    from smidgen.export.guest.spreading import spread

    shop = workshop(0)
    network = shop.source.load()
    images = ((shop.tuner.pixels - 127.5) / 127.5).astype(np.float32)
    expected = np.asarray(network(images))
    folded = fold_batch_norms(network).model
    nearest = spread(folded, clusterable(folded))
    for name in clusterable(folded):
        kernel = nearest.get_layer(name).kernel
        kernel.assign(np.rint(np.asarray(kernel) * 7) / 7)
    result = cluster(network, ClusteringRecipe(clusters=15, epochs=0), shop)
    errors = [
        np.square(np.asarray(each(images)) - expected).mean() for each in (result.network, nearest)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.slow
def test_channels_of_an_int8_kernel_share_their_codes_and_the_file_zips(workshop, int8_kernels):
    from smidgen.export.formats.to_tflite import to_tflite_int8
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.guest.clustering import cluster

    shop = workshop(2)
    network = shop.source.load()
    result = cluster(network, ClusteringRecipe(clusters=6, epochs=1), shop)
    files = [
        to_tflite_int8(model, shop.source.normalization, shop.calibration, lambda _: None)
        for model in (fold_batch_norms(network).model, result.network)
    ]
    plain, clustered = (
        [k for k in int8_kernels(data) if k.shape[0] != 1 and k.size > 64] for data in files
    )
    assert len(plain) == len(clustered) == 6
    for before, after in zip(plain, clustered, strict=True):
        assert len(np.unique(after)) <= 6 < len(np.unique(before))
    sizes = [len(zlib.compress(b"".join(k.tobytes() for k in f), 9)) for f in (plain, clustered)]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.slow
def test_sparse_networks_keep_their_zeros(workshop, kernels_of):
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.guest.clustering import _tuned, cluster, clusterable
    from smidgen.export.guest.sparsity import sparsify
    from smidgen.export.guest.spreading import spread
    from smidgen.export.guest.structure import Structure, structure_of, values_of

    shop = workshop(3)
    sparse = sparsify(shop.source.load(), SparsityRecipe(share=0.6, epochs=1), shop).network
    settings = ClusteringRecipe(clusters=8, epochs=1)
    result = cluster(sparse, settings, shop)
    assert structure_of(sparse) == Structure(is_sparse=True)
    assert structure_of(result.network) == Structure(is_sparse=True, is_clustered=True)
    for name, kernel in kernels_of(result.network).items():
        before = kernels_of(sparse)[name]
        assert (kernel[before == 0] == 0).all(), name
        assert len(values_of(kernel)) <= 8
    folded = fold_batch_norms(sparse).model
    names = clusterable(folded)
    wide = _tuned(spread(folded, names), names, settings, shop, is_sparse=False)
    lost = [
        (kernel[kernels_of(sparse)[name] == 0] != 0).any()
        for name, kernel in kernels_of(wide).items()
    ]
    assert any(lost), "nothing else holds them"


def test_spreading_changes_no_answer(small_network):
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.guest.clustering import clusterable
    from smidgen.export.guest.spreading import channel_ranges, spread

    network = fold_batch_norms(small_network()).model
    wide = spread(network, clusterable(network))
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(network(pixels))
    assert np.abs(np.asarray(wide(pixels)) - expected).max() <= 1e-5 * np.abs(expected).max()
    kernel = wide.layers[1].get_weights()[0]
    assert np.allclose(channel_ranges(kernel), 1)
    again = fold_batch_norms(wide).model
    for mine, other in zip(again.get_weights(), network.get_weights(), strict=True):
        assert np.allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_starting_values():
    from smidgen.export.guest.clustering import starting_values

    weights = np.clip(np.random.default_rng(0).normal(0, 0.3, 5000), -1, 1).astype(np.float32)
    values = starting_values(weights, 15, has_zero=False)
    assert len(values) == 15 and (np.diff(values) > 0).all()
    assert values[0] == -values[-1]
    assert np.diff(values).max() < 1.5 * np.diff(values).min(), "nearly evenly spaced"
    weights[::2] = 0
    with_zero = starting_values(weights, 15, has_zero=True)
    assert len(with_zero) == 15 and with_zero[7] == 0


@pytest.mark.parametrize("clusters", [1, 2])
def test_too_few_clusters_are_refused(workshop, clusters):
    from smidgen.export.guest.clustering import cluster

    shop = workshop(1)
    with pytest.raises(StructureError, match=f"clusters = {clusters}: expected 0 .off. or at"):
        cluster(shop.source.load(), ClusteringRecipe(clusters=clusters), shop)


def test_a_lost_cluster_is_an_error(small_network):
    from smidgen.export.guest.clustering import _check

    layer = small_network().get_layer("logits")
    with pytest.raises(StructureError, match="left 32 distinct weights in a channel, expected 4"):
        _check(layer, 4)
