"""Small folders of real image files, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
HUES = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}

MakeFolder = Callable[..., Path]
Enliven = Callable[..., np.ndarray]
Patches = Callable[[int, int], np.ndarray]


def write_picture(path: Path, seed: int, colour: tuple[int, int, int], side: int = 72) -> None:
    """A noisy picture around one colour; another seed gives other bytes."""
    noise = np.random.default_rng(seed).integers(-40, 40, (side, side, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def make_folder_in() -> MakeFolder:
    """``make_folder_in(folder, {"red": 10, ...})``: class folders with distinct pictures."""

    def make(folder: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
        for index, (label, count) in enumerate(counts.items()):
            colour = HUES.get(label, (100, 100, 100))
            for number in range(count):
                seed = first_seed + 10_000 * index + number
                write_picture(folder / label / f"{number:04d}.png", seed, colour)
        return folder

    return make


@pytest.fixture
def make_folder(tmp_path: Path, make_folder_in: MakeFolder) -> MakeFolder:
    """``make_folder(name, {"red": 10, ...})``: the same in this test's own folder."""

    def make(name: str, counts: Mapping[str, int], first_seed: int = 0) -> Path:
        return make_folder_in(tmp_path / name, counts, first_seed)

    return make


@pytest.fixture(scope="session")
def enliven() -> Enliven:
    """``enliven(network, images)``: random batch norms, with the statistics of ``images``, and
    random logits.

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
