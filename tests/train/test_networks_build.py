"""Every backbone of the table: its size, its input, ensembles of several, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from smidgen.runtime.errors import SchemaError
from smidgen.train.backend import select_backend
from smidgen.train.errors import WeightsMismatch, WeightsMissing
from smidgen.train.models.backbones import BACKBONES, Application, BackboneName, Normalization
from smidgen.train.models.facts import check_model, normalization_of, parameters_of
from smidgen.train.models.weights_file import check_weights, weights_path, weights_sha256
from smidgen.train.recipe import ModelRecipe

select_backend("tensorflow")

import keras  # noqa: E402

from smidgen.train.models.network import build  # noqa: E402

LARGE = ("efficientnet-b4", "efficientnet-b5", "efficientnet-b6", "efficientnet-b7")
TWO = ModelRecipe(backbone="mobilenet-v2", ensemble=("efficientnet-b0",), weights="none")


def count(network: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


def test_the_table_names_every_choice() -> None:
    assert tuple(BACKBONES) == get_args(BackboneName)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in BACKBONES],
)
def test_parameters_are_as_published(name: BackboneName) -> None:
    """timm has these counts for lite0..4, keras.applications for the others (VGG and MobileNetV3
    less their larger classifiers); the papers round them."""
    facts = BACKBONES[name]
    network = build(ModelRecipe(backbone=name, weights="none"), 1000, facts.smallest_image_size)
    assert count(network) == facts.parameters
    logits = network.get_layer("logits")
    assert logits.input.shape == (None, facts.features)
    assert (network.input.name, network.output_names) == ("image", ["logits"])
    kinds = {type(layer) for layer in network.layers}
    assert not kinds & {keras.layers.Normalization, keras.Model}


def test_parameters_of_are_never_too_few() -> None:
    assert parameters_of(TWO) >= count(build(TWO, 10, 32)) + 500_000


def test_images_must_be_large_enough() -> None:
    model = ModelRecipe(backbone="mobilenet-v2", ensemble=("xception",), weights="none")
    with pytest.raises(SchemaError, match=r"image_size = 70: xception takes at least 71 pixels"):
        build(model, 3, 70)
    assert build(ModelRecipe(backbone="xception", weights="none"), 3, 71).output_shape == (None, 3)


def test_binary_is_for_two_classes() -> None:
    model = ModelRecipe(output="binary", weights="none")
    with pytest.raises(SchemaError, match="'binary' with 3 classes"):
        check_model(model, 3, 224)
    assert build(model, 2, 32).output_shape == (None, 1)


def test_an_ensemble_is_its_networks_side_by_side() -> None:
    """Each branch gives what the network alone gives for the pixels normalised as it wants."""
    ensemble = build(TWO, 3, 64)
    names = [operation.name for operation in ensemble.operations]
    assert len(set(names)) == len(names)
    features = keras.Model(ensemble.input, ensemble.get_layer("features").output)
    assert normalization_of(TWO) == Normalization.uniform(0.0, 1.0)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    found = np.asarray(features(pixels))
    parts = []
    for name in ("mobilenet-v2", "efficientnet-b0"):
        alone = build(ModelRecipe(backbone=name, weights="none"), 3, 64)
        for layer in alone.layers[1:-2]:
            layer.set_weights(ensemble.get_layer(f"{name}_{layer.name}").get_weights())
        how = normalization_of(ModelRecipe(backbone=name))
        normalised = (pixels - np.float32(how.mean)) / np.float32(how.std)
        parts.append(
            np.asarray(keras.Model(alone.input, alone.get_layer("pool").output)(normalised))
        )
    expected = np.concatenate(parts, axis=1)
    assert found.shape == (2, 2560)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    swapped = np.concatenate(parts[::-1], axis=1)
    assert not np.allclose(found, swapped, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_an_ensemble_starts_from_the_weights_of_each() -> None:
    """Needs the package of Lite1's weights beside that of Lite0's."""
    model = ModelRecipe(backbone="efficientnet-lite1", ensemble=("efficientnet-lite0",))
    try:
        check_weights(model)
    except WeightsMissing as error:
        pytest.skip(str(error))
    network = build(model, 3, 32)
    for name in ("efficientnet-lite0", "efficientnet-lite1"):
        alone = build(ModelRecipe(backbone=name), 3, 32)
        for layer in alone.layers[1:-2]:
            found = network.get_layer(f"{name}_{layer.name}").get_weights()
            for left, right in zip(layer.get_weights(), found, strict=True):
                np.testing.assert_array_equal(left, right)
    assert not network.get_layer("logits").get_weights()[0].any()


def test_weights_are_checked_without_keras(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"not HDF5")
    (tmp_path / "a.keras").write_bytes(b"not a zip file")
    with pytest.raises(WeightsMismatch, match=r"a\.h5 is not an HDF5 file"):
        weights_path("resnet50", str(tmp_path / "a.h5"))
    with pytest.raises(WeightsMismatch, match=r"expected imagenet, none, .* \.keras or \.pth"):
        weights_path("efficientnet-lite0", str(tmp_path / "a.h5"))
    with pytest.raises(WeightsMismatch, match=r"for vgg16: .* \.keras or \.h5"):
        weights_path("vgg16", "x.pth")
    with pytest.raises(WeightsMismatch, match=r"a\.keras is not a Keras model"):
        weights_path("vgg16", str(tmp_path / "a.keras"))
    assert weights_path("vgg16", "imagenet") is None
    assert weights_sha256(ModelRecipe(backbone="vgg16")) == ""
    with pytest.raises(WeightsMissing, match="no package with ImageNet weights"):
        check_weights(ModelRecipe(backbone="vgg16", ensemble=("efficientnet-lite3",)))


def test_weights_that_cannot_be_fetched_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"cannot fetch .* MobileNetV3Small .*\.h5 file") as it:
        build(ModelRecipe(backbone="mobilenet-v3-small"), 3, 32)
    assert "\n" not in str(it.value)
    assert capsys.readouterr().out == ""


def test_every_application_is_one_of_keras() -> None:
    builders = [facts.builder for facts in BACKBONES.values()]
    names = [builder.name for builder in builders if isinstance(builder, Application)]
    assert len(names) == 20
    assert all(callable(getattr(keras.applications, name)) for name in names)
