"""Small folders of real image files, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
HUES = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}

MakeFolder = Callable[..., Path]


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
