"""For all rooms: Ctrl-C as in a terminal, tiny real ONNX Bundles, and lively networks.

The Bundles' model is the softmax over the mean of each colour channel.
"""

from __future__ import annotations

import dataclasses
import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.runtime.manifest import Manifest, Preprocessing, Provenance, TensorSpec, Verdict
from smidgen.runtime.selftest import make_golden

LABELS = ("red", "green", "blue")
SIDE = 8

Enliven = Callable[..., np.ndarray]
Patches = Callable[[int, int], np.ndarray]

LONGEST = (
    "end_to_end/test_line.py",
    "end_to_end/test_articles.py",
    "end_to_end/test_boards.py",
    "train/test_hosts.py",
    "train/test_networks_files.py",
    "export/formats/test_networks.py",
    "train/test_backbones_learn.py",
    "train/test_choices.py",
    "end_to_end/test_pythons.py",
    "train/fitting/test_processes.py",
    "benchmarks/test_training_bench.py",
    "export/test_line.py",
)
"""Files that take minutes, the longest first: what begins last should be short, as one of two
workers has nothing to do while the other one ends."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``LONGEST`` first, all others in the order in which they were asked for.

    ``--dist loadfile`` keeps that order with ``--no-loadscope-reorder`` alone; it would sort the
    files by their number of tests, which says nothing about their time.
    """
    here = Path(__file__).parent
    rank = {here / name: place for place, name in enumerate(LONGEST)}
    gone = [str(path) for path in rank if not path.is_file()]
    if gone:
        raise pytest.UsageError(f"LONGEST in {__file__} names {gone}: name files that there are")
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_configure() -> None:
    """Undo what a shell does to background jobs: they ignore SIGINT, and so would our children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images of tests stay out of the user's cache, in child processes too."""
    before = os.environ.get("SMIDGEN_CACHE")
    os.environ["SMIDGEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["SMIDGEN_CACHE"]
    if before is not None:
        os.environ["SMIDGEN_CACHE"] = before


def verdict(word: Any = "pass", drop: float = 0.25) -> Verdict:
    """A verdict with a drop of ``drop`` points out of 1 allowed."""
    return Verdict(word, 400, 98.5, 98.5 - drop, drop, drop - 0.5, drop + 0.5, 1.0, 3, 0.01, 0.1)


def picture_png(red: int, blue: int) -> bytes:
    """A 16 x 16 picture of one colour, as PNG."""
    pil = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    pil.new("RGB", (16, 16), (red, 0, blue)).save(stream, "PNG")
    return stream.getvalue()


def scores(pixels: Any) -> Any:
    """What the model computes: ``(N, 8, 8, 3) uint8`` to ``(N, 3)`` probabilities."""
    powers = np.exp(pixels.astype(np.float64).mean(axis=(1, 2)) / 32)
    return powers / powers.sum(axis=1, keepdims=True)


def onnx_model() -> bytes:
    """The tiny model, with a free batch size."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=kinds.FLOAT),
        helper.make_node("Mul", ["real", "gain"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Softmax", ["means"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kinds.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["N", 3])],
        [helper.make_tensor("gain", kinds.FLOAT, [1], [1 / 32])],
    )
    opset = [helper.make_opsetid("", 13)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX Bundle; keyword arguments replace fields of its manifest."""
    pack = pytest.importorskip("smidgen.export.formats.pack").pack

    def make(file: str = "tiny-float32.onnx", **changes: Any) -> Path:
        size = Preprocessing(width=SIDE, height=SIDE)
        manifest = Manifest(
            name="tiny",
            model_format="onnx",
            scheme="float32",
            labels=LABELS,
            preprocessing=size,
            input=TensorSpec("image", (-1, SIDE, SIDE, 3), "uint8", "NHWC", 0.0, 255.0),
            output=TensorSpec("probabilities", (-1, 3), "float32", "NC", 0.0, 1.0),
            provenance=Provenance("2026-11-22T00:00:00Z", "tiny", "test", "", "aa", "bb"),
            payload_sha256="",
            golden=make_golden(picture_png(200, 40), size, scores, LABELS, 1e-4),
            verdict=verdict(),
        )
        data, _ = pack(onnx_model(), dataclasses.replace(manifest, **changes))
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return make


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A blue picture."""
    path = tmp_path / "blue.png"
    path.write_bytes(picture_png(30, 220))
    return path


@pytest.fixture(scope="session")
def enliven() -> Enliven:
    """``enliven(network, images)``: random biases and batch norms, with the statistics of
    ``images``, and random logits.

    Freshly built, deep networks answer nearly the same to everything, so that comparing answers
    would prove nothing. Returns the outputs for ``images``, which should not look alike. Small
    variances are raised, as dividing by them would blow up rounding errors.
    """

    def call(network: Any, images: np.ndarray) -> np.ndarray:
        import keras

        random = np.random.default_rng(0)
        norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
        drops = [x for x in network.layers if isinstance(x, keras.layers.Dropout)]
        before = [norm.momentum for norm in norms], [drop.rate for drop in drops]
        for norm in norms:
            if norm.scale:
                norm.gamma.assign(random.uniform(0.7, 1.3, norm.gamma.shape))
            norm.beta.assign(random.normal(0, 0.2, norm.beta.shape))
            norm.momentum = 0.0
        for drop in drops:
            drop.rate = 0.0
        for layer in network.layers:
            if getattr(layer, "use_bias", False):
                layer.bias.assign(random.normal(0, 0.2, layer.bias.shape))
        last = network.layers[-1]
        if isinstance(last, keras.layers.Dense):
            last.set_weights([random.normal(size=w.shape) for w in last.get_weights()])
        network(images, training=True)
        for norm, momentum in zip(norms, before[0], strict=True):
            norm.momentum = momentum
            variance = np.asarray(norm.moving_variance)
            norm.moving_variance.assign(np.maximum(variance, variance.mean()))
        for drop, rate in zip(drops, before[1], strict=True):
            drop.rate = rate
        return np.asarray(network(images, training=False))

    return call


@pytest.fixture(scope="session")
def patches() -> Patches:
    """``patches(count, side)``: pictures of 3 x 3 patches of random colours, little noise.

    ``(count, side, side, 3) float32``, whole numbers 0..255.
    """

    def make(count: int, side: int) -> np.ndarray:
        random = np.random.default_rng(5)
        place = np.arange(side) * 3 // side
        colours = random.uniform(20, 235, (count, 3, 3, 3))[:, place][:, :, place]
        return np.round(colours + random.uniform(-20, 20, colours.shape)).astype(np.float32)

    return make
