"""``smidgen train``: what it starts from, and how it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidgen.cli.main import run
from smidgen.train import DataRecipe, TrainRecipe
from smidgen.train.run import Run as RunFolder


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert run(["train", *argv]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_nothing_to_train_on_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name a folder of images or a recipe.toml, or --resume RUN" in said(capsys)


@pytest.mark.parametrize("beside", [["photos"], ["--out", "elsewhere"], ["--image-size", "96"]])
def test_resuming_takes_nothing_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], beside: list[str]
) -> None:
    text = said(capsys, "--resume", str(tmp_path), *beside)
    assert "leave out SOURCE, --out and all settings" in text


def test_resuming_goes_by_the_recipe_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images of its recipe are gone: that is what it says, so it has read the recipe."""
    kept = RunFolder(tmp_path / "run")
    kept.keep_recipe(TrainRecipe(DataRecipe(str(tmp_path / "gone"))))
    assert run(["train", "--resume", str(kept.folder)]) == 1
    assert f"{tmp_path / 'gone'} is not a folder" in capsys.readouterr().err
    assert run(["train", "--resume", str(tmp_path)]) == 1
    assert "has no recipe.toml" in capsys.readouterr().err


def test_steps_between_checkpoints_are_counted_from_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["train", "photos", "--checkpoint-every-steps", "0"]) == 2
    assert "at least 1, got '0'" in capsys.readouterr().err


def test_an_orientation_task_with_flips_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pages").mkdir()
    text = said(capsys, str(tmp_path / "pages"), "--labels", "orientation")
    assert "flips and turns would change the label" in text
    assert "horizontal_flip = false" in text
