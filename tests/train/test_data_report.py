"""The data report and its contact sheet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smidgen.train import DataRecipe, Dataset, Example
from smidgen.train.data import Found, Inventory, Skipped, divide
from smidgen.train.data.balance import class_weights
from smidgen.train.data.contact_sheet import COLUMNS, draw_samples, mosaic, samples, shown_classes
from smidgen.train.data.file_facts import Spread, file_facts
from smidgen.train.data.report import data_report, skipped_by_reason, write_data_report
from smidgen.train.data.scan import take_inventory
from smidgen.train.pixels.source import ArrayPixels

SHARES = (0.7, 0.1, 0.2)


def written(folder: Path) -> Path:
    """One file of each kind, and one that is no picture."""
    folder.mkdir()
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grey.save(folder / "grey.png")
    grey.convert("CMYK").save(folder / "cmyk.jpg")
    grey.convert("P").resize((20, 8)).save(folder / "palette.png")
    frames = [Image.new("RGB", (8, 30), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(
        folder / "three_views.jpg", format="MPO", save_all=True, append_images=frames[1:]
    )
    (folder / "text.jpg").write_text("no picture")
    return folder


def test_headers_give_kinds_sizes_and_animation(tmp_path: Path) -> None:
    facts = file_facts(str(path) for path in sorted(written(tmp_path / "x").iterdir()))
    assert facts.kinds == {
        "JPEG CMYK": 1, "PNG L": 1, "WEBP RGB": 1, "PNG P": 1, "unknown": 1, "MPO RGB": 1
    }  # fmt: skip
    assert (facts.width, facts.height) == (Spread(8, 8, 20), Spread(8, 8, 30))
    assert facts.animated == 1
    assert file_facts([]).width == Spread(0, 0, 0)


def test_a_report_counts_and_warns(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    make_folder("photos/train", {"red": 40, "blue": 6})
    make_folder("photos/test", {"red": 4, "blue": 4}, first_seed=500)
    root = make_folder("photos", {})
    recipe = DataRecipe(str(root), group_by="file-names", separator="-")
    inventory = take_inventory(root, recipe)
    skipped = (Skipped("a", "the same content as b"), Skipped("c", "the same content as d"))
    inventory = replace(inventory, skipped=skipped)
    pair = [i.example.sha256 for i in inventory.found if i.example.path.endswith("red/0000.png")]
    dataset = divide(inventory, recipe.shares, together=[pair])
    report = data_report(inventory, dataset, image_size=96)
    assert report.images["test"] == 8
    assert sum(report.classes["blue"].values()) == 10
    trained = [counts["train"] for counts in report.classes.values()]
    assert report.imbalance == round(trained[1] / trained[0], 2) > 3
    assert report.files.kinds == {"PNG RGB": 54}
    assert report.skipped == {"copy of another image": 2}
    assert (report.look_alikes.sets, report.look_alikes.in_several_splits) == (1, 1)
    assert report.look_alikes.listed[0]["test"] == [f"{root}/test/red/0000.png"]
    # 0000.png ... 0003.png are names in train and in test
    assert (report.groups.sets, report.groups.images) == (40, 54)
    assert report.groups.in_several_splits == 4
    assert report.notes == (
        f"class 'red' has {report.imbalance:.3g} times as many training images as 'blue': "
        'schedule.balance = "weights" or "sampling" makes up for it',
        "in more than one split: 1 of 1 clusters of look-alikes (data_report.json lists them); "
        "validation and test may look too good",
        "in more than one split: 4 of 40 groups (data_report.json lists them); "
        "validation and test may look too good",
        "some images are smaller than the input of 96 px, down to 72 px",
    )
    write_data_report(tmp_path / "run/data_report.json", report)
    content = json.loads((tmp_path / "run/data_report.json").read_text())
    assert content["files"]["width"] == {"smallest": 72, "median": 72, "largest": 72}
    assert content["groups"]["in_several_splits"] == 4


def test_reasons_are_counted_without_what_differs() -> None:
    reasons = [
        "the same content as /x/a.png", "the same content as /x/b.png",
        "the same content is in the classes a, b",
        "truncated or corrupt image (image file is truncated (3 bytes)); replace it by a whole one",
        "truncated or corrupt image (broken PNG); replace it by a whole one",
        "no label: there is no '.' in its name",
        "something new (of /x/c.png); look at it",
    ]  # fmt: skip
    assert skipped_by_reason(Skipped(str(n), reason) for n, reason in enumerate(reasons)) == {
        "copy of another image": 2,
        "truncated or corrupt": 2,
        "the same content in several classes": 1,
        "no label in the file's name": 1,
        "something new": 1,
    }


def made_up(classes: int, per_class: int) -> tuple[Dataset, ArrayPixels]:
    found = tuple(
        Found(Example(f"/x/{n}", n % classes, f"{n:064x}"), None)
        for n in range(classes * per_class)
    )
    labels = tuple(f"class {n:03}" for n in range(classes))
    shades = np.arange(len(found), dtype=np.uint8)[:, None, None, None]
    pixels = np.broadcast_to(shades, (len(found), 16, 16, 3)).copy()
    rows = {item.example.sha256: row for row, item in enumerate(found)}
    return divide(Inventory("/x", labels, found, (), 0), SHARES), ArrayPixels(pixels, rows)


@pytest.mark.parametrize(("classes", "rows"), [(2, 2), (20, 20), (21, 20), (500, 20)])
def test_a_contact_sheet_has_at_most_twenty_rows(classes: int, rows: int, tmp_path: Path) -> None:
    shown = shown_classes(classes)
    assert (len(shown), shown[0], shown[-1]) == (rows, 0, classes - 1)
    assert shown == sorted(set(shown))
    dataset, pixels = made_up(classes, 5)
    chosen = samples(dataset, shown)
    assert all(example.label == label for label in shown for example in chosen[label])
    assert all(1 <= len(chosen[label]) <= COLUMNS for label in shown)
    draw_samples(dataset, pixels, tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as sheet:
        assert 900 < sheet.width < 1400
        assert 92 * rows < sheet.height < 92 * rows + 120


def test_a_contact_sheet_shows_the_images_turned() -> None:
    """An image that is black above and white below is white on its right after one turn."""
    upright = np.zeros((1, 32, 32, 3), np.uint8)
    upright[:, 16:] = 255
    found = tuple(Found(Example(f"/x/{n}", 0, f"{n:064x}"), None) for n in range(60))
    inventory = Inventory("/x", ("0", "90", "180", "270"), found, (), 0, "orientation")
    dataset = divide(inventory, SHARES)
    source = ArrayPixels(upright, {item.example.sha256: 0 for item in found})
    tiles = mosaic(dataset, source, [0, 1, 2, 3])
    assert tiles.shape == (4 * 92, 920, 3)
    for turn in range(4):
        tile = tiles[92 * turn : 92 * turn + 88, :88, 0] > 127
        wanted = np.rot90(np.arange(88)[:, None] * np.ones((1, 88)) >= 44, turn)
        assert (tile == wanted).mean() > 0.95
        assert (tile == ~wanted).mean() < 0.05


def test_class_weights_make_classes_equal_and_keep_the_mean() -> None:
    counts = np.array([1000, 10, 90])
    weights = class_weights(counts)
    np.testing.assert_allclose(weights * counts, [1100 / 3] * 3, rtol=1e-6)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0, abs=1e-6)
