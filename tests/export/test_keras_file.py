"""Any Keras model file as a source: its ends, labels and images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.export.errors import SourceError
from smidgen.export.keras_file import KerasFile, from_keras_file, read_labels
from smidgen.export.source import ChannelNormalization
from smidgen.train.recipe import DataRecipe

LABELS = ("ash", "beech", "cedar")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Twelve small pictures in each of three folders."""
    from PIL import Image

    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label in LABELS:
        (folder / label).mkdir()
        for number in range(12):
            pixels = random.integers(0, 256, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def model(end: str, classes: int = 3, shape: tuple[int | None, ...] = (32, 32, 3)) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input(shape)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(x)
    if end == "softmax layer":
        x = layers.Softmax()(layers.Dense(classes)(x))
    elif end == "softmax activation":
        x = layers.Activation("softmax")(layers.Dense(classes)(x))
    else:
        x = layers.Dense(classes, activation=end, name="out")(x)
    return keras.Model(image, x)


def saved(network: Any, tmp_path: Path) -> Path:
    path = tmp_path / "mine.keras"
    network.save(path)
    return path


def source(path: Path, images: Path, labels: tuple[str, ...] = LABELS):
    data = DataRecipe(folder=str(images))
    return from_keras_file(KerasFile(path, labels, data, ChannelNormalization.of(127.0, 128.0)))


@pytest.mark.parametrize("end", ["linear", "softmax", "softmax layer", "softmax activation"])
def test_probabilities_become_logits(end, images, tmp_path):
    network = model(end)
    float_model = source(saved(network, tmp_path), images)
    pixels = np.random.default_rng(2).normal(0, 1, (4, 32, 32, 3)).astype(np.float32)
    logits = np.asarray(float_model.load()(pixels))
    wanted = np.asarray(network(pixels))
    if end == "linear":
        assert np.abs(logits - wanted).max() == 0
    else:
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert np.abs(shares - wanted).max() < 1e-6
        assert np.abs(logits - wanted).max() > 0.01  # logits, not probabilities
    assert float_model.preprocessing.width == 32
    assert (float_model.labels, float_model.name) == (LABELS, "mine")


def test_one_sigmoid_unit_becomes_two_logits(images, tmp_path):
    network = model("sigmoid", classes=1)
    for name in ("cedar", "beech", "ash"):
        assert (images / name).is_dir()
    float_model_images = tmp_path / "two"
    float_model_images.mkdir()
    for name in ("ash", "beech"):
        (float_model_images / name).symlink_to(images / name)
    float_model = source(saved(network, tmp_path), float_model_images, ("ash", "beech"))
    pixels = np.random.default_rng(2).normal(0, 1, (4, 32, 32, 3)).astype(np.float32)
    logits = np.asarray(float_model.load()(pixels))
    assert logits.shape == (4, 2)
    wanted = np.asarray(network(pixels))[:, 0]
    assert np.abs(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])) - wanted).max() < 1e-6


def test_only_ready_splits_have_validation_images(images, tmp_path):
    """Of class folders nobody knows what the model was trained on."""
    path = saved(model("softmax"), tmp_path)
    assert source(path, images).validation == ()
    ready = tmp_path / "ready"
    for label in LABELS:
        for number in range(12):
            split = "train" if number < 6 else "validation" if number < 10 else "test"
            (ready / split / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(images / label / f"{number}.png", ready / split / label)
    found = source(path, ready).validation
    assert len(found) == 12
    for picture in found:
        assert Path(picture.path).parts[-3:-1] == ("validation", LABELS[picture.label])


def test_labels_keep_the_order_of_the_outputs(images, tmp_path):
    turned = ("cedar", "ash", "beech")
    float_model = source(saved(model("softmax"), tmp_path), images, turned)
    for picture in (*float_model.held_out, *float_model.calibration_pool):
        assert turned[picture.label] == Path(picture.path).parent.name
    held = {picture.sha256 for picture in float_model.held_out}
    assert held
    assert not held & {picture.sha256 for picture in float_model.calibration_pool}


def test_what_does_not_fit_is_one_line(images, tmp_path):
    path = saved(model("softmax"), tmp_path)
    for labels, message in (
        (("ash", "beech"), "3 outputs and there are 2 labels"),
        (("ash", "beech", "oak"), "images of 'cedar', which is none of the 3 labels"),
    ):
        with pytest.raises(SourceError, match=message) as caught:
            source(path, images, labels)
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="with the activation 'tanh'"):
        source(saved(model("tanh"), tmp_path), images)
    with pytest.raises(SourceError, match="expected square images"):
        source(saved(model("softmax", shape=(32, 48, 3)), tmp_path), images)
    with pytest.raises(SourceError, match="no model file"):
        source(tmp_path / "none.keras", images)
    (tmp_path / "broken.keras").write_bytes(b"not a model")
    with pytest.raises(SourceError, match="cannot load the model"):
        source(tmp_path / "broken.keras", images)


def test_a_file_of_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("ash\nbeech\n\n")
    assert read_labels(path) == ("ash", "beech")
    path.write_text("ash\nash\n")
    with pytest.raises(SourceError, match="2 labels, 1 of them different"):
        read_labels(path)
    with pytest.raises(SourceError, match="cannot read"):
        read_labels(tmp_path / "none.txt")
