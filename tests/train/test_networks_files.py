"""Weights files of keras.applications: our network answers as theirs does, pixels for pixels.

That proves the constants of ``Normalization``, the order of colours and every layer's place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.train.backend import select_backend
from smidgen.train.errors import WeightsMismatch
from smidgen.train.models.backbones import BACKBONES, Application, BackboneName
from smidgen.train.models.facts import normalization_of
from smidgen.train.recipe import ModelRecipe

select_backend("tensorflow")

import h5py  # noqa: E402
import keras  # noqa: E402

from smidgen.train.models.network import build  # noqa: E402

Enliven = Callable[..., np.ndarray]
Patches = Callable[[int, int], np.ndarray]
FAMILIES: dict[BackboneName, Any] = {
    "efficientnet-b0": keras.applications.efficientnet,
    "efficientnetv2-b0": keras.applications.efficientnet_v2,
    "resnet50": keras.applications.resnet50,
    "vgg16": keras.applications.vgg16,
    "vgg19": keras.applications.vgg19,
    "inception-v3": keras.applications.inception_v3,
    "xception": keras.applications.xception,
    "mobilenet-v2": keras.applications.mobilenet_v2,
    "mobilenet-v3-small": keras.applications.mobilenet_v3,
    "mobilenet-v3-large": keras.applications.mobilenet_v3,
}
QUICK = (
    ("efficientnet-b0", "legacy"),
    ("vgg16", "legacy"),
    ("mobilenet-v3-small", "legacy"),
    ("mobilenet-v3-small", "keras3"),
)
CLASSES = 5


def application(name: BackboneName) -> Application:
    builder = BACKBONES[name].builder
    assert isinstance(builder, Application)
    return builder


def side_of(name: BackboneName) -> int:
    return BACKBONES[name].smallest_image_size + 32


def keras_network(name: BackboneName, include_top: bool) -> Any:
    """As keras.applications builds it, with its own preprocessing where it has any inside."""
    side = side_of(name)
    function = getattr(keras.applications, application(name).name)
    options: dict[str, Any] = {"pooling": "avg"}
    if include_top:
        options = {"classes": CLASSES, "classifier_activation": None}
    network = function(
        weights=None, include_top=include_top, input_shape=(side, side, 3), **options
    )
    if name.startswith("efficientnet-b"):
        norm = network.get_layer(next(x.name for x in network.layers if "normalization" in x.name))
        std = np.array([0.229, 0.224, 0.225])
        norm.set_weights([np.array([0.485, 0.456, 0.406]), std**2, np.int64(0)])
        norm.finalize_state()
    return network


def as_keras_wants(name: BackboneName, pixels: np.ndarray) -> np.ndarray:
    inputs: np.ndarray = FAMILIES[name].preprocess_input(pixels.copy())
    return inputs


def our_answers(network: Any, model: ModelRecipe, pixels: np.ndarray) -> np.ndarray:
    how = normalization_of(model)
    return np.asarray(network((pixels - np.float32(how.mean)) / np.float32(how.std)))


def legacy_h5(network: Any, path: Path) -> Path:
    """The format of the published files: layers in order, each with its arrays by name."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in network.layers]
        for layer in network.layers:
            group = file.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [f"{layer.name}/{index}:0" for index in range(len(weights))]
            group.attrs["weight_names"] = names
            for name, weight in zip(names, weights, strict=True):
                group[name] = np.asarray(weight)
    return path


def save(network: Any, folder: Path, kind: str) -> Path:
    if kind == "legacy":
        return legacy_h5(network, folder / "network.h5")
    path = folder / "network.weights.h5"
    network.save_weights(path)
    return path


Lively = Callable[[BackboneName, bool], tuple[Any, np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def lively(enliven: Enliven, patches: Patches) -> Lively:
    """``lively(name, include_top)``: Keras' network, 8 pictures, and its answers to them.

    The last one is kept: files of both kinds are made of it. Nothing may change its weights.
    """
    kept: dict[tuple[BackboneName, bool], tuple[Any, np.ndarray, np.ndarray]] = {}

    def make(name: BackboneName, include_top: bool) -> tuple[Any, np.ndarray, np.ndarray]:
        key = name, include_top
        if key not in kept:
            kept.clear()
            pixels = patches(8, side_of(name))
            theirs = keras_network(name, include_top)
            kept[key] = theirs, pixels, enliven(theirs, as_keras_wants(name, pixels))
        return kept[key]

    return make


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] * ((name, kind) not in QUICK))
        for name in FAMILIES
        for kind in ("legacy", "keras3")
    ],
)
def test_features_equal_those_of_keras(
    name: BackboneName, kind: str, tmp_path: Path, lively: Lively
) -> None:
    theirs, pixels, expected = lively(name, False)
    keras.layers.Conv2D(1, 1)  # numbers of unnamed layers go on from here
    model = ModelRecipe(backbone=name, weights=str(save(theirs, tmp_path, kind)))
    ours = build(model, 3, pixels.shape[1])
    features = keras.Model(ours.input, ours.get_layer("pool").output)
    close = {"rtol": 1e-4, "atol": 1e-4 * np.abs(expected).max()}
    np.testing.assert_allclose(our_answers(features, model, pixels), expected, **close)
    turned = our_answers(features, model, np.ascontiguousarray(pixels[..., ::-1]))
    assert not np.allclose(turned, expected, **close), "colours in the wrong order would be seen"
    brighter = our_answers(features, model, pixels + 0.5)
    assert not np.allclose(brighter, expected, **close), "a mean 0.5 off would be seen"


@pytest.mark.parametrize("kind", ["legacy", "keras3"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("efficientnet-b0", marks=pytest.mark.slow),
        pytest.param("resnet50", marks=pytest.mark.slow),
        "mobilenet-v2",
        "mobilenet-v3-small",
    ],
)
def test_files_with_a_classifier(
    name: BackboneName, kind: str, tmp_path: Path, lively: Lively
) -> None:
    """A linear classifier becomes our logits; any other is left out."""
    theirs, pixels, expected = lively(name, True)
    model = ModelRecipe(backbone=name, weights=str(save(theirs, tmp_path, kind)))
    ours = build(model, CLASSES, pixels.shape[1])
    if application(name).has_linear_top:
        found = our_answers(ours, model, pixels)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        assert np.ptp(expected, axis=0).min() > 1e-3
    else:
        assert not ours.get_layer("logits").get_weights()[0].any()
    first = next(layer for layer in ours.layers if layer.weights)
    assert not np.array_equal(first.get_weights()[0], np.zeros(1))
    other = build(model, CLASSES + 1, pixels.shape[1])
    assert not other.get_layer("logits").get_weights()[0].any()


@pytest.mark.slow
def test_a_full_vgg_file_gives_its_backbone(tmp_path: Path, patches: Patches) -> None:
    pixels = patches(8, side_of("vgg16"))
    theirs = keras_network("vgg16", include_top=False)
    expected = np.asarray(theirs(keras.applications.vgg16.preprocess_input(pixels.copy())))
    full = keras.Sequential([*theirs.layers[:-1], keras.layers.Flatten()])
    full.add(keras.layers.Dense(16, name="fc1"))
    full.add(keras.layers.Dense(16, name="fc2"))
    full.add(keras.layers.Dense(CLASSES, name="predictions"))
    model = ModelRecipe(backbone="vgg16", weights=str(legacy_h5(full, tmp_path / "full.h5")))
    with pytest.raises(WeightsMismatch, match="does not hold the weights"):
        build(model, 3, 32)
    full = keras_network("vgg16", include_top=True)
    for ours, given in zip(full.layers[1:19], theirs.layers[1:19], strict=True):
        ours.set_weights(given.get_weights())
    full.save_weights(tmp_path / "full.weights.h5")
    model = ModelRecipe(backbone="vgg16", weights=str(tmp_path / "full.weights.h5"))
    ours = build(model, 3, pixels.shape[1])
    features = keras.Model(ours.input, ours.get_layer("pool").output)
    np.testing.assert_allclose(our_answers(features, model, pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("include_top", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_published_efficientnets_hold_deviations_for_variances(
    include_top: bool, tmp_path: Path, enliven: Enliven, patches: Patches
) -> None:
    """And their graph divides by the square root once more; so the constants are the same."""
    pixels = patches(8, side_of("efficientnet-b0"))
    theirs = keras_network("efficientnet-b0", include_top)
    expected = enliven(theirs, pixels)
    norm = next(x for x in theirs.layers if type(x) is keras.layers.Normalization)
    mean, variance, steps = norm.get_weights()
    norm.set_weights([mean, np.sqrt(variance), steps])
    path = legacy_h5(theirs, tmp_path / "efficientnetb0.h5")
    model = ModelRecipe(backbone="efficientnet-b0", weights=str(path))
    network = build(model, CLASSES, pixels.shape[1])
    if not include_top:
        network = keras.Model(network.input, network.get_layer("pool").output)
    found = our_answers(network, model, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_other_constants_inside_an_efficientnet_are_refused(tmp_path: Path) -> None:
    theirs = keras_network("efficientnet-b0", include_top=False)
    norm = next(x for x in theirs.layers if type(x) is keras.layers.Normalization)
    norm.set_weights([np.zeros(3), np.ones(3), np.int64(0)])
    path = legacy_h5(theirs, tmp_path / "b0.h5")
    with pytest.raises(WeightsMismatch, match=r"means \[0\.0, 0\.0, 0\.0\] and variances .*of Im"):
        build(ModelRecipe(backbone="efficientnet-b0", weights=str(path)), 3, 32)


@pytest.mark.parametrize("kind", ["legacy", "keras3"])
def test_a_file_of_another_network_is_one_line(kind: str, tmp_path: Path) -> None:
    path = save(keras_network("mobilenet-v3-small", include_top=False), tmp_path, kind)
    for name in ("mobilenet-v3-large", "vgg16"):
        with pytest.raises(WeightsMismatch, match="is it another network") as caught:
            build(ModelRecipe(backbone=name, weights=str(path)), 3, 32)
        assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = save(keras_network("mobilenet-v3-small", include_top=False), tmp_path, "legacy")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsMismatch, match="does not hold the weights") as caught:
        build(ModelRecipe(backbone="mobilenet-v3-small", weights=str(path)), 3, 32)
    assert "\n" not in str(caught.value)
