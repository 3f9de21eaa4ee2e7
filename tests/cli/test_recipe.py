"""Recipe file and flags: merging, paths, and what a mistake is told."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from smidgen.cli.errors import UsageError
from smidgen.cli.flags import add_flags, flags_of, overrides
from smidgen.cli.recipe_file import TABLES, line_recipe, load
from smidgen.cli.sources import add_source, recipe_and_run
from smidgen.runtime.errors import SchemaError

ALL = list(TABLES)


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_source(parser)
    add_flags(parser, ALL)
    return parser.parse_args(argv)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "cat").mkdir(parents=True)
    return folder


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_setting_is_one_flag_and_no_flag_is_two_settings() -> None:
    flags = flags_of(ALL)
    assert len(flags) == sum(len(dataclasses.fields(cls)) for cls in TABLES.values())
    assert set(Counter(flag.option for flag in flags).values()) == {1}
    options = {(flag.table, flag.key): flag.option for flag in flags}
    assert options["data", "image_size"] == "--image-size"
    assert options["data", "seed"] == "--data-seed"
    assert options["schedule", "seed"] == "--schedule-seed"
    assert options["export", "max_drop"] == "--max-drop"
    assert all(flag.field.metadata.get("help") for flag in flags)


def test_a_flag_has_the_same_name_in_every_command() -> None:
    alone = {flag.key: flag.option for flag in flags_of(["data"])}
    assert alone == {flag.key: flag.option for flag in flags_of(ALL) if flag.table == "data"}


def test_flags_become_typed_values() -> None:
    arguments = parse(
        "x", "--image-size", "160", "--split", "0.6,0.2,0.2", "--no-horizontal-flip",
        "--formats", "onnx", "--schemes", "float32, int8", "--max-drop", "2", "--rounds=3",
        "--head-learning-rate", "1e-2",
    )  # fmt: skip
    assert overrides(arguments, ALL) == {
        "data": {"image_size": 160, "split": (0.6, 0.2, 0.2)},
        "schedule": {"horizontal_flip": False, "head_learning_rate": 0.01},
        "export": {"formats": ("onnx",), "schemes": ("float32", "int8"), "max_drop": 2.0},
        "bench": {"rounds": 3},
    }


def test_flags_override_the_file_and_the_file_the_defaults(photos: Path) -> None:
    path = recipe_file(
        photos.parent,
        '[data]\nfolder = "photos"\nimage_size = 96\nlimit = 7\n'
        "[schedule]\nhead_epochs = 1\n[export]\nmax_drop = 3\n[bench]\nthreads = 2\n",
    )
    recipe, run = recipe_and_run(parse(str(path), "--image-size", "128", "--runs", "9"), ALL)
    assert (recipe.data.image_size, recipe.data.limit, recipe.data.split) == (
        128, 7, (70, 10, 20),
    )  # fmt: skip
    assert (recipe.schedule.head_epochs, recipe.export.max_drop) == (1, 3.0)
    assert (recipe.bench.threads, recipe.bench.runs, recipe.bench.rounds) == (2, 9, 5)
    assert run == Path("runs/recipe")


def test_paths_in_a_file_are_relative_to_it_and_flags_to_here(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = photos.parent / "elsewhere"
    elsewhere.mkdir()
    text = '[data]\nfolder = "../photos"\n[model]\nweights = "w.keras"\n'
    path = recipe_file(elsewhere, text)
    recipe, _ = recipe_and_run(parse(str(path)), ALL)
    assert recipe.data.folder == str(photos)
    assert recipe.model.weights == str(elsewhere / "w.keras")
    monkeypatch.chdir(photos.parent)
    recipe, _ = recipe_and_run(parse(str(path), "--folder", "photos", "--weights", "none"), ALL)
    assert (recipe.data.folder, recipe.model.weights) == (str(photos), "none")


def test_a_folder_is_a_recipe_of_defaults(photos: Path) -> None:
    recipe, run = recipe_and_run(parse(str(photos) + "/"), ALL)
    assert recipe == line_recipe({"data": {"folder": str(photos)}})
    assert run == Path("runs/photos")
    _, run = recipe_and_run(parse(str(photos), "--out", "here"), ALL)
    assert run == Path("here")


def test_the_resolved_recipe_reads_back_equal(photos: Path) -> None:
    recipe, _ = recipe_and_run(parse(str(photos), "--max-drop", "0.5"), ALL)
    again = line_recipe(load(recipe_file(photos.parent, recipe.to_toml())))
    assert again == recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[data]\nfolder = "photos"\nimage_sise = 96\n', "'image_sise' in [data]; did you mean "),
        ('[data]\nfolder = "photos"\nimage_size = "96"\n', "data.image_size: expected a whole num"),
        ('[data]\nfolder = "photos"\n[shedule]\n', "unknown table 'shedule'; did you mean 'sched"),
        ('[data]\nfolder = "photos"\n[export]\nformats = ["tfl"]\n', "did you mean 'tflite'?"),
        ('[data]\nfolder = "photos"\n[bench]\nrounds = 0\n', "bench.rounds = 0: allowed 1 to 1000"),
        ('max_drop = 2\n[data]\nfolder = "photos"\n', "'max_drop' belongs in the table [export]"),
        ("data = 3\n", "data must be a table: write [data] on its own line"),
        ("[model]\n", "data.folder is missing: images"),
        ("[data\n", "is not TOML: "),
    ],
)
def test_a_mistake_in_the_file_names_the_key(photos: Path, text: str, expected: str) -> None:
    path = recipe_file(photos.parent, text)
    with pytest.raises(SchemaError) as caught:
        recipe_and_run(parse(str(path)), ALL)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_places_that_cannot_be(photos: Path) -> None:
    with pytest.raises(UsageError, match="among the images"):
        recipe_and_run(parse(str(photos), "--out", str(photos / "runs" / "x")), ALL)
    with pytest.raises(UsageError, match="two folders of images"):
        recipe_and_run(parse(str(photos), "--folder", str(photos)), ALL)
    picture = photos / "cat" / "1.jpg"
    picture.touch()
    with pytest.raises(UsageError, match=r"expected a folder of images, or a recipe\.toml"):
        recipe_and_run(parse(str(picture)), ALL)
    with pytest.raises(UsageError, match="is a file: expected a folder, or a new name"):
        recipe_and_run(parse(str(photos), "--out", str(recipe_file(photos.parent, ""))), ALL)
    path = recipe_file(photos.parent, '[data]\nfolder = "fotos"\n')
    with pytest.raises(UsageError, match="no such folder of images"):
        recipe_and_run(parse(str(path)), ALL)


@pytest.mark.skipif(sys.platform == "darwin", reason="needs a disk that takes any file name")
def test_a_folder_that_a_recipe_file_cannot_name(photos: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"ph\xf6tos")
    with pytest.raises(UsageError, match="name that is not UTF-8; rename the folder"):
        recipe_and_run(parse(str(photos), "--out", str(odd / "run")), ALL)
    photos.rename(odd)
    with pytest.raises(UsageError, match="name that is not UTF-8; rename the folder"):
        recipe_and_run(parse(str(odd), "--out", str(tmp_path / "run")), ALL)
