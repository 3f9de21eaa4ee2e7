"""The comparison of loaders: that all make the same squares, and the arithmetic of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from smidgen.bench.loaders import (
    CACHED,
    FIRST_PASS,
    STREAMED,
    Images,
    Loader,
    our_loaders,
    pillow_loader,
    pillow_square,
)
from smidgen.bench.loading import as_markdown, compare, main, rows, take_images
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 small JPEG files in two folders, and a file that is none."""
    folder = tmp_path / "photos"
    for number in range(40):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path = folder / f"{number % 2}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((80, 60)).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


class Ticking:
    """A clock that each loader moves on by its cost, in ns."""

    def __init__(self) -> None:
        self.now = 0

    def loader(self, name: str, ns_per_image: int) -> Loader:
        def run() -> int:
            self.now += 100 * ns_per_image
            return 100

        return Loader(name, run)


def test_the_table_is_made_of_ratios_of_rounds() -> None:
    clock = Ticking()
    costs = {FIRST_PASS: 500_000, CACHED: 10_000, "slow": 2_000_000, STREAMED: 400_000}
    loaders = [clock.loader(name, cost) for name, cost in costs.items()]
    said: list[str] = []
    times = compare(loaders, 3, said.append, clock=lambda: clock.now)
    assert times == {name: [[cost]] * 3 for name, cost in costs.items()}
    assert len(said) == 16 and said[0].startswith("round 0/3") and said[-1].startswith("round 3/3")
    found = rows(times)
    assert [row.name for row in found] == ["slow", FIRST_PASS, STREAMED, CACHED]
    assert [round(row.images_per_second) for row in found] == [500, 2000, 2500, 100_000]
    assert found[0].first_pass_ratio is not None and found[0].cached_ratio is not None
    assert found[0].first_pass_ratio.value == pytest.approx(4.0)
    assert found[0].cached_ratio.value == pytest.approx(200.0)
    lines = as_markdown(found, ["a machine"]).splitlines()
    assert lines[0] == "a machine  "
    assert lines[4] == "| slow | 500 | 4.00 [4.00, 4.00] | 200.00 [200.00, 200.00] |"
    assert lines[-1] == f"| {CACHED} | 100,000 |  |  |"


def test_every_loader_makes_all_the_squares(photos: Path, tmp_path: Path) -> None:
    images = take_images(photos, 1000, 32)
    assert (len(images.paths), len(take_images(photos, 7, 32).paths)) == (40, 7)
    for loader in (*our_loaders(images, tmp_path), pillow_loader(images)):
        expected = 32 if loader.name in (CACHED, STREAMED) else 40  # whole batches
        assert loader.run() == expected == loader.run()
    np.testing.assert_array_equal(
        pillow_square(images.paths[0], 32), load_pixels(images.paths[0], Preprocessing(32, 32))
    )


@pytest.mark.slow
def test_keras_and_tensorflow_make_the_same_squares(photos: Path) -> None:
    pytest.importorskip("tensorflow")
    from smidgen.bench.loaders import keras_loader, tensorflow_loader

    images = take_images(photos, 1000, 32)
    assert [make(images).run() for make in (keras_loader, tensorflow_loader)] == [40, 40]


def test_an_empty_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} holds no .jpg or .jpeg file\n"
    assert Images([], 8).paths == []
