"""``smidgen predict``: on a Run's float network, and drawing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smidgen.cli.main import run
from smidgen.train.data import Dataset, Example
from smidgen.train.recipe import DataRecipe, TrainRecipe
from smidgen.train.run import Run
from smidgen.train.seeing.metrics import evaluation

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("onnxruntime")

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
LABELS = ("blue", "green", "red")
SIDE = 32
CHANNELS = 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Run whose network answers with the strongest colour: logits are the means of B, G, R."""
    from smidgen.train.backend import select_backend

    select_backend("tensorflow")
    import keras

    folder = tmp_path_factory.mktemp("runs") / "colours"
    made = Run(folder)
    made.keep_recipe(TrainRecipe(DataRecipe(str(folder.parent / "photos"), image_size=SIDE)))
    example = Example(str(folder.parent / "photos" / "red" / "1.png"), 2, "ab" * 32)
    made.keep_dataset(Dataset(str(folder.parent / "photos"), LABELS, (example,), (), (example,)))
    image = keras.Input((SIDE, SIDE, CHANNELS))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    dense = keras.layers.Dense(len(LABELS))
    network = keras.Model(image, dense(pooled))
    dense.set_weights([4 * np.eye(3, dtype=np.float32)[::-1], np.zeros(3, np.float32)])
    network.save(made.model_path)
    made.keep_test_metrics(evaluation(np.eye(3)[[2]], np.array([2]), LABELS))
    return folder


@pytest.fixture
def colours(tmp_path: Path) -> list[str]:
    """Pictures of one colour each, of several shapes."""
    paths = []
    for name, colour, size in (("a", (255, 0, 0), (90, 40)), ("b", (0, 0, 255), (30, 60))):
        path = tmp_path / f"{name}.png"
        Image.new("RGB", size, colour).save(path)
        paths.append(str(path))
    return paths


def is_png(path: Path) -> bool:
    with Image.open(path) as image:
        return bool(image.format == "PNG" and min(image.size) > 100)


def test_pictures_go_into_a_folder_one_file_each(
    make_bundle: Make, colours: list[str], capsys: Capture, tmp_path: Path
) -> None:
    twin = tmp_path / "other" / "a.png"
    twin.parent.mkdir()
    shutil.copy(colours[0], twin)
    folder = tmp_path / "drawn"
    assert run(["predict", str(make_bundle()), *colours, str(twin), "--picture", str(folder)]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["a-answer-2.png", "a-answer.png", "b-answer.png"]
    assert all(is_png(path) for path in folder.iterdir())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines] == ["red", "blue", "red"]  # one label each


def test_a_name_in_png_is_one_sheet(
    make_bundle: Make, colours: list[str], tmp_path: Path, capsys: Capture
) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    argv = ["predict", str(make_bundle()), *colours, "--picture", str(sheet), "--top", "2"]
    assert run(argv) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    with Image.open(sheet) as both:
        assert run([*argv[:3], "--picture", str(tmp_path / "one.png")]) == 0
        with Image.open(tmp_path / "one.png") as one:
            assert both.size == (one.width, 2 * one.height)
    assert [path.name for path in sheet.parent.iterdir()] == ["sheet.png"]


def test_a_picture_that_cannot_be_read_is_left_out_of_the_sheet(
    make_bundle: Make, colours: list[str], tmp_path: Path, capsys: Capture
) -> None:
    sheet = tmp_path / "sheet.png"
    model = str(make_bundle())
    assert run(["predict", model, "nowhere.png", colours[0], "--picture", str(sheet)]) == 1
    assert is_png(sheet)
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{colours[0]}\tred\t")
    assert captured.err.count("\n") == 1
    sheet.unlink()
    assert run(["predict", model, "nowhere.png", "--picture", str(sheet)]) == 1
    assert not sheet.exists()


def test_places_that_cannot_be_drawn_to(
    make_bundle: Make, colours: list[str], tmp_path: Path, capsys: Capture
) -> None:
    model = str(make_bundle())
    before = Path(colours[0]).read_bytes()
    for place, expected in (
        (colours[0], "is one of the pictures to label"),
        ("answers.jpg", r"expected a name that ends in .png, or a folder"),
        (model + "/", "is a file: expected a folder"),
    ):
        assert run(["predict", model, *colours, "--picture", place.rstrip("/")]) == 2
        captured = capsys.readouterr()
        assert expected in captured.err
        assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert Path(colours[0]).read_bytes() == before
    many = [colours[0]] * 61
    assert run(["predict", model, *many, "--picture", str(tmp_path / "s.png")]) == 2
    assert "at most 60 pictures, 61 were named" in capsys.readouterr().err


def test_a_drawing_never_writes_over_a_picture(
    make_bundle: Make, colours: list[str], tmp_path: Path
) -> None:
    named_alike = tmp_path / "a-answer.png"
    shutil.copy(colours[1], named_alike)
    before = named_alike.read_bytes()
    argv = ["predict", str(make_bundle()), colours[0], str(named_alike)]
    assert run([*argv, "--picture", str(tmp_path)]) == 0
    assert named_alike.read_bytes() == before
    assert is_png(tmp_path / "a-answer-2.png")
    assert is_png(tmp_path / "a-answer-answer.png")


def test_float_needs_a_finished_run(
    make_bundle: Make, colours: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert run(["predict", str(make_bundle()), *colours, "--float"]) == 2
    assert "expected a Run folder" in capsys.readouterr().err
    begun = tmp_path / "begun"
    Run(begun).keep_recipe(TrainRecipe(DataRecipe("photos")))
    for flags in ([], ["--float"]):
        assert run(["predict", str(begun), *colours, *flags]) == 1
        captured = capsys.readouterr()
        assert "is not finished" in captured.err
        assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.slow
def test_a_run_without_bundles_answers_by_itself(
    finished: Path, colours: list[str], tmp_path: Path, capsys: Capture
) -> None:
    capsys.readouterr()
    argv = ["predict", str(finished), colours[0], "nowhere.png", colours[1], "--top", "3"]
    assert run([*argv, "--picture", str(tmp_path / "sheet.png")]) == 1
    captured = capsys.readouterr()
    told, complaint = captured.err.splitlines()
    assert told == (
        f"smidgen: {finished / 'model.keras'} (the float network, in Keras; nothing was exported "
        "yet)"
    )
    assert "nowhere.png" in complaint
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert [row[1] for row in rows] == ["red", "blue", "green", "blue", "green", "red"]
    # Normalised as Lite0 is: (255 - 127) / 128 = 1 and (0 - 127) / 128; times 4.
    high, low = np.exp(4.0), np.exp(4 * -127 / 128)
    assert float(rows[0][2]) == pytest.approx(high / (high + 2 * low), abs=1e-4)
    assert is_png(tmp_path / "sheet.png")


@pytest.mark.slow
def test_float_forces_the_runs_own_network(
    finished: Path, make_bundle: Make, colours: list[str], tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    make_bundle("run/bundles/run-float32.onnx")
    assert run(["predict", str(folder), colours[0]]) == 0
    assert capsys.readouterr().err == f"smidgen: {folder / 'bundles' / 'run-float32.onnx'}\n"
    assert run(["predict", str(folder), colours[0], "--float", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"smidgen: {folder / 'model.keras'} (the float network, in Keras)\n"
    assert '"label": "red"' in captured.out
    assert run(["predict", str(folder), colours[0], "--float", "--threads", "2"]) == 2
    assert "--engine and --threads are for Bundles" in capsys.readouterr().err
