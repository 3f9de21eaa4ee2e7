"""``smidgen preflight`` from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smidgen.cli.main import run

Capture = pytest.CaptureFixture[str]


def test_it_prints_the_table(capsys: Capture) -> None:
    pytest.importorskip("tensorflow")
    argv = ["preflight", "efficientnet-lite0", "--image-size", "32", "--classes", "4"]
    assert run([*argv, "--for", "edgetpu"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("efficientnet-lite0: 32 x 32 px, 4 classes\n")
    assert "\nedgetpu         fine     Coral Edge TPU\n" in captured.out
    assert "\nlitert " not in captured.out
    assert "75.10 -> 74.40" in captured.out
    assert captured.err == ""


def test_json_is_one_object(capsys: Capture) -> None:
    pytest.importorskip("tensorflow")
    argv = ["preflight", "mobilenet-v3-small", "--image-size", "32", "--classes", "2"]
    assert run([*argv, "--json", "--for", "gpu", "--for", "edgetpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [target["target"] for target in found["targets"]] == ["gpu", "edgetpu"]
    assert found["targets"][1]["verdict"] == "breaks"
    assert (found["image_size"], found["classes"]) == (32, 2)
    assert found["parts"]["hard_swish"] == 18


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["eficientnet-b0"], "no such network; did you mean efficientnet-b0?"),
        (["zzz"], "zzz: no such Run folder, and no such network; networks: efficientnet-lite0,"),
        (["vgg16", "--for", "toaster"], "invalid choice: 'toaster'"),
        (["vgg16", "--image-size", "0"], "expected a whole number of at least 1, got '0'"),
        (["."  , "--classes", "3"], "--image-size and --classes go with a network's name"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(argv: list[str], expected: str, capsys: Capture) -> None:
    assert run(["preflight", *argv]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: Capture) -> None:
    assert run(["preflight", str(tmp_path)]) == 1
    assert "is not a Run folder (no recipe.toml)" in capsys.readouterr().err
