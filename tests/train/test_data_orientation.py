"""Upright images and their four turns, from the folder to the pixels and the Run's file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smidgen.export.calibration import refuse_held_out
from smidgen.export.errors import CalibrationError
from smidgen.export.pictures import Picture, hash_of_hashes
from smidgen.runtime.manifest import Preprocessing
from smidgen.train import DataRecipe, Run
from smidgen.train.data import SPLITS
from smidgen.train.data.scan import scan, take_inventory
from smidgen.train.errors import DataError


def recipe(folder: Path, group_by: str = "none") -> DataRecipe:
    return DataRecipe(str(folder), labels="orientation", group_by=group_by)  # type: ignore[arg-type]


def test_images_are_found_at_any_depth(make_folder) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("pages/books/deep", {"red": 6, "blue": 5})
    root = folder.parents[1]
    (folder / "red/0000.png").rename(root / "top.png")
    (root / ".hidden").mkdir()
    (folder / "blue/0000.png").rename(root / ".hidden/0.png")
    (root / "notes.txt").write_text("x")
    (folder / "loop").symlink_to(root)
    inventory = take_inventory(root, recipe(root))
    assert (inventory.labels, inventory.task) == (("0", "90", "180", "270"), "orientation")
    assert len(inventory.found) == 10
    assert {item.example.label for item in inventory.found} == {0}
    assert inventory.ignored_files == 1
    assert "top.png" in {Path(item.example.path).name for item in inventory.found}


def test_ready_splits_and_groups(make_folder) -> None:  # type: ignore[no-untyped-def]
    make_folder("pages/train", {"red": 30, "blue": 30})
    make_folder("pages/test", {"green": 5}, first_seed=500)
    root = make_folder("pages", {})
    dataset = scan(root, recipe(root))
    assert dataset.counts("test") == (5, 5, 5, 5)
    assert len(dataset.train) + len(dataset.validation) // 4 == 60
    with pytest.raises(DataError, match="pages/train has 60 usable images in 2 groups"):
        scan(root / "train", recipe(root, "folder"))
    (root / "val").mkdir()
    with pytest.raises(DataError, match=r"pages/val holds no image, at any depth"):
        scan(root, recipe(root))


def test_a_run_keeps_turns_and_task(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("pages", {"red": 12})
    dataset = scan(folder, recipe(folder))
    run = Run(tmp_path / "run")
    run.keep_dataset(dataset)
    assert run.dataset() == dataset
    rows = json.loads(run.dataset_path.read_text())["splits"]["test"]
    assert [len(row) for row in rows[:4]] == [3, 4, 4, 4]
    assert [row[3] for row in rows[1:4]] == [1, 2, 3]
    assert {e.turn for name in SPLITS for e in run.dataset().split(name)} == {0, 1, 2, 3}


def test_pictures_of_the_gate_are_turned(tmp_path: Path) -> None:
    square = np.arange(48 * 48 * 3, dtype=np.uint32).reshape(48, 48, 3).astype(np.uint8)
    Image.fromarray(square).save(tmp_path / "square.png")
    upright = take_inventory_of_one(tmp_path)
    size = Preprocessing(width=48, height=48)
    for turn in range(4):
        pixels = Picture(upright.path, upright.sha256, turn, turn).pixels(size)
        np.testing.assert_array_equal(pixels, np.rot90(square, turn))
        assert pixels.flags.c_contiguous
    assert not np.array_equal(np.rot90(square, 1), np.rot90(square, 3))  # the check can fail


def take_inventory_of_one(folder: Path) -> Picture:
    found = take_inventory(folder, recipe(folder)).found
    assert len(found) == 1
    return Picture(found[0].example.path, found[0].example.sha256)


def test_hashes_of_picture_sets_tell_turns_apart() -> None:
    upright = [Picture("a", "1" * 64), Picture("b", "2" * 64)]
    turned = [Picture("a", "1" * 64, turn=1), Picture("b", "2" * 64)]
    assert hash_of_hashes(upright) != hash_of_hashes(turned)
    lines = "1" * 64 + "\n" + "2" * 64  # as before there were turns
    assert hash_of_hashes(upright) == hashlib.sha256(lines.encode()).hexdigest()
    with pytest.raises(CalibrationError, match="held out"):  # the content counts, in any turn
        refuse_held_out(turned, upright[:1])
