"""``smidgen debug``: what it refuses before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from smidgen.cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["a.tflite"], "name what BUNDLE was made from: a Run folder before it"),
        ([".", "a.tflite", "--pretrained", "efficientnet-lite0"], "a Run folder before it, or"),
        (["a.tflite", "--pretrained", "efficientnet-lite0"], "--pretrained and --images go toge"),
        ([".", "a.tflite", "--images", "."], "--pretrained and --images go together"),
        (["nowhere", "a.tflite"], "nowhere: no such folder"),
        ([".", "nowhere.tflite"], "nowhere.tflite: no such file; name an int8 .tflite Bundle"),
        ([".", "a.tflite", "--count", "9"], "expected a whole number of at least 10, got '9'"),
    ],
)
def test_a_wrong_command_line_is_one_line(argv: list[str], expected: str, capsys: Capture) -> None:
    assert run(["debug", *argv]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_folder_that_is_no_run(
    make_bundle: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    assert run(["debug", str(tmp_path), str(make_bundle())]) == 1
    assert "is not a Run folder (no recipe.toml)" in capsys.readouterr().err
