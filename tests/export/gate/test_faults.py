"""Planted faults that the gate must catch, in a network that really tells its classes apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smidgen.export.formats.pack import pack
from smidgen.export.formats.tflite_file import operator_name, read_model, write_model
from smidgen.export.gate.held_out import HeldOut, from_class_folders
from smidgen.export.gate.regression import BundleModel, Comparison, compare
from smidgen.export.gate.verdicts import Limits
from smidgen.export.line import export
from smidgen.export.pictures import Picture, scan_unlabelled
from smidgen.export.recipe import ExportPlan, ExportRecipe, Format
from smidgen.export.source import ChannelNormalization, FloatModel
from smidgen.runtime.bundle import payload_of
from smidgen.runtime.manifest import Preprocessing, Scheme
from smidgen.train.progress import SilentProgress

pytestmark = pytest.mark.slow

COLOURS = {"red": (1.0, 0.3, 0.2), "green": (0.3, 1.0, 0.3), "blue": (0.2, 0.4, 1.0)}
LEVELS = {"dark": 90, "light": 220}
SIZE = Preprocessing(width=32, height=32)
LIMITS = Limits(3.0)


@dataclasses.dataclass(frozen=True)
class World:
    """A float model that is right on nearly all held-out images, and these."""

    source: FloatModel
    held_out: HeldOut
    folder: Path


def draw(folder: Path, each: int, seed: int) -> Path:
    """``each`` noisy, striped pictures of two levels of three colours, a folder for each."""
    random = np.random.default_rng(seed)
    for colour, shares in COLOURS.items():
        for level, high in LEVELS.items():
            place = folder / f"{level} {colour}"
            place.mkdir(parents=True)
            for number in range(each):
                stripes = 1 + 0.15 * np.sin(np.arange(32) * random.uniform(0.1, 1.0))[:, None, None]
                tone = high * random.uniform(0.85, 1.1) * np.array(shares)
                pixels = tone * stripes + random.normal(0, 12, (32, 32, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory, small_network: Callable[..., Any]) -> World:
    """The small network with its random layers as they are and its head fitted to the classes."""
    folder = tmp_path_factory.mktemp("world")
    labels = tuple(sorted(f"{level} {colour}" for level in LEVELS for colour in COLOURS))
    training = from_class_folders(draw(folder / "train", 40, seed=1), labels)
    held_out = from_class_folders(draw(folder / "held-out", 70, seed=2), labels)
    network = fitted(small_network(classes=len(labels)), training)
    source = FloatModel(
        name="tones",
        source="test",
        backbone="small",
        labels=labels,
        preprocessing=SIZE,
        normalization=ChannelNormalization.of(127.0, 128.0),
        load=lambda: network,
        weights_sha256="1" * 64,
        data_sha256="2" * 64,
        calibration_pool=training.pictures,
        held_out=held_out.pictures,
    )
    return World(source, held_out, folder)


def fitted(network: Any, training: HeldOut) -> Any:
    """Ridge regression from the last features to the classes: logits 8 apart."""
    import keras

    features = keras.Model(network.input, network.get_layer("logits").input)
    pixels = np.stack([picture.pixels(SIZE) for picture in training.pictures])
    seen = np.asarray(features((pixels.astype(np.float32) - 127) / 128, training=False), np.float64)
    seen = np.hstack([seen, np.ones((len(seen), 1))])
    wanted = np.eye(6)[[picture.label for picture in training.pictures]]
    weights = np.linalg.solve(seen.T @ seen + 1e-3 * np.eye(seen.shape[1]), seen.T @ wanted)
    network.get_layer("logits").set_weights([8 * weights[:-1], 8 * weights[-1]])
    return network


def exported(
    world: World,
    source: FloatModel,
    scheme: Scheme = "float32",
    form: Format = "tflite",
) -> BundleModel:
    """The file of a source; its own gate may say what it likes."""
    folder = world.folder / f"{source.name}-{scheme}-{form}"
    recipe = ExportRecipe(formats=(form,), schemes=(scheme,), calibration_images=60)
    (made,) = export(source, ExportPlan(recipe), folder).bundles
    return BundleModel.open(made.path)


@pytest.fixture(scope="module")
def baseline(world: World) -> BundleModel:
    """The stored file that candidates are compared with."""
    return exported(world, world.source)


@pytest.fixture(scope="module")
def int8_file(world: World) -> BundleModel:
    return exported(world, world.source, "int8")


def judged(candidate: BundleModel, baseline: BundleModel, world: World) -> Comparison:
    return compare(candidate, baseline, world.held_out, LIMITS, SilentProgress())


def test_the_right_files_pass(world: World, baseline: BundleModel, int8_file: BundleModel) -> None:
    for candidate in (int8_file, exported(world, world.source, form="onnx")):
        found = judged(candidate, baseline, world)
        assert found.passed, found.verdict
        assert found.verdict is not None
        assert found.verdict.reference_top1_percent >= 95
        assert found.verdict.images == 420


def changed_network(world: World, name: str, change: Callable[[Any], None]) -> FloatModel:
    import keras

    network = keras.models.clone_model(world.source.load())
    network.set_weights(world.source.load().get_weights())
    change(network)
    return dataclasses.replace(world.source, name=name, load=lambda: network)


def bgr(network: Any) -> None:
    """The first kernel with its input channels in the other order: as if fed BGR."""
    first = next(layer for layer in network.layers if layer.weights)
    kernel, *others = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], *others])


def shuffled_labels(network: Any) -> None:
    head = network.get_layer("logits")
    kernel, bias = head.get_weights()
    order = [1, 2, 3, 4, 5, 0]
    head.set_weights([kernel[:, order], bias[order]])


def fails(found: Comparison) -> None:
    assert found.verdict is not None
    assert found.verdict.verdict == "fail", found.verdict
    assert found.verdict.drop_low_points > 3
    assert found.verdict.lost is not None
    assert found.verdict.lost >= 20
    assert found.verdict.mcnemar_p is not None
    assert found.verdict.mcnemar_p < 1e-4


@pytest.mark.parametrize("change", [bgr, shuffled_labels])
def test_a_wrong_order_fails(
    world: World, baseline: BundleModel, change: Callable[[Any], None]
) -> None:
    source = changed_network(world, change.__name__, change)
    fails(judged(exported(world, source), baseline, world))


def test_a_wrong_normalisation_fails(world: World, baseline: BundleModel) -> None:
    """0..1 instead of -1..1."""
    wrong = ChannelNormalization.of(0.0, 255.0)
    source = dataclasses.replace(world.source, name="normalisation", normalization=wrong)
    fails(judged(exported(world, source), baseline, world))


def test_a_broken_scale_fails(
    world: World, baseline: BundleModel, int8_file: BundleModel, tmp_path: Path
) -> None:
    """One weight scale in four of the first convolution is four times what it should be."""
    manifest = int8_file.bundle.manifest
    model = read_model(payload_of(bytes(int8_file.bundle.data)))
    graph = model.subgraphs[0]
    first = next(
        operator for operator in graph.operators
        if operator_name(model.operatorCodes[operator.opcodeIndex]) == "CONV_2D"
    )  # fmt: skip
    scales = np.array(graph.tensors[first.inputs[1]].quantization.scale, np.float32)
    scales[::4] *= 4
    graph.tensors[first.inputs[1]].quantization.scale = scales
    data, _ = pack(write_model(model), manifest)
    path = tmp_path / "scale.tflite"
    path.write_bytes(data)
    fails(judged(BundleModel.open(path), baseline, world))


def test_calibration_on_noise_fails(world: World, baseline: BundleModel) -> None:
    """Faint noise around grey instead of pictures: the ranges cut off what pictures make."""
    place = world.folder / "noise"
    place.mkdir()
    random = np.random.default_rng(3)
    for number in range(60):
        noise = random.integers(123, 133, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(noise).save(place / f"{number}.png")
    noise_pool: tuple[Picture, ...] = scan_unlabelled(place)
    source = dataclasses.replace(world.source, name="noise-file", calibration_pool=noise_pool)
    candidate = exported(world, source, "int8")
    fails(judged(candidate, baseline, world))
    # the gate of the export itself has caught it too
    verdict = candidate.bundle.manifest.verdict
    assert verdict is not None
    assert verdict.verdict == "fail"
    assert ".gate-failed." in candidate.name
