"""The command line from outside: help, speed, spelling, endings, exit status."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smidgen.cli.commands import COMMANDS, options_of
from smidgen.cli.endings import ending
from smidgen.cli.main import run
from smidgen.runtime.errors import NotABundle

HEAVY = ("tensorflow", "keras", "jax", "PIL", "matplotlib", "onnx", "onnxruntime", "ai_edge_litert")


def process(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smidgen.cli", *argv],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["export", "--help"]])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from smidgen.cli.main import run\n"
        f"status = run({argv!r})\n"
        f"print(json.dumps([status, [m for m in {HEAVY!r} if m in sys.modules]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: smidgen {command} " in text
    assert f"\n  smidgen {command} " in text.partition("examples:")[2]
    for option in options_of(command):
        assert option in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "smidgen 0.1.0\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "arguments are required: COMMAND; see `smidgen --help`"),
        (["exprot"], "unknown command 'exprot'; did you mean export?"),
        (["--verison"], "unknown flag --verison; did you mean --version?"),
        (["run", "--max-dorp", "2", "x"], "--max-dorp of `smidgen run`; did you mean --max-drop?"),
        (["run", "x", "--no-horizontal-flipp"], "did you mean --no-horizontal-flip?"),
        (["train", "x", "--max-drop=2"], "unknown flag --max-drop of `smidgen train`;"),
        (["run", ".", "--image-size", "5"], "--image-size = 5: allowed 32 to 1024"),
        (["run", ".", "--image-size", "big"], "--image-size: expected a whole number, got 'big'"),
        (["run", ".", "--formats", "tflit"], "did you mean 'tflite'? allowed values: 'tflite', "),
        (["run", ".", "--backbone", "lite0"], "allowed values: 'efficientnet-lite0', "),
        (["run", ".", "--split", "1,1,1,1"], "expected three numbers (train, validation, test)"),
        (["run", "nowhere"], "nowhere: no such folder of images, and no such recipe.toml"),
        (["run", "a", "b"], "unexpected argument 'b'; see `smidgen run --help`"),
        (["bench", "nowhere.onnx"], "nowhere.onnx: no such file or folder"),
        (["export"], "name what to export: a Run folder, --model and"),
        (["export", "x", "--pretrained", "efficientnet-lite0"], "one of the three"),
        (["export", "nowhere"], "nowhere: no such folder"),
        (["export", ".", "--images", "."], "--images goes with --pretrained or --model"),
        (["export", "--model", "m.keras"], "--model needs --labels FILE (a line for each output)"),
        (["export", ".", "--mean", "1"], "--labels, --mean and --std go with --model"),
        (["export", ".", "--keep-channels", "2"], "--keep-channels = 2.0: allowed 0.05 to 1"),
        (
            ["export", "--pretrained", "efficientnet-lite0", "--schemes", "float32,int8"],
            "int8 needs pictures for calibration and for the gate: add --images FOLDER",
        ),
        (["predict", "m.onnx", "i.png", "--top", "0"], "at least 1, got '0'"),
        (["predict", "m.onnx", "--engine", "litter", "i.png"], "invalid choice: 'litter'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("smidgen: ")
    assert expected in captured.err


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (NotABundle("x: not a model"), 1, "smidgen: x: not a model\n"),
        (KeyboardInterrupt(), 130, "smidgen: interrupted; run the same command again to go on\n"),
        (MemoryError(), 1, "smidgen: out of memory: use a smaller --batch-size"),
        (OSError(errno.ENOSPC, "No space", "a/b"), 1, "smidgen: disk full while writing a/b: free"),
        (PermissionError(errno.EACCES, "Denied", "a/b"), 1, "smidgen: no permission for a/b: "),
        (FileNotFoundError(errno.ENOENT, "None", "a"), 1, "smidgen: no such file or folder: a\n"),
        (ModuleNotFoundError("No", name="keras"), 1, "smidgen: the package 'keras' is not inst"),
        (SystemExit(0), 0, ""),
    ],
)
def test_every_ending_is_one_line(
    error: BaseException, status: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(error, ["run"]) == status
    err = capsys.readouterr().err
    assert err.startswith(expected)
    assert err.count("\n") == (1 if expected else 0)


def test_only_a_command_that_goes_on_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """``export`` takes up its files and tunings; ``predict`` and ``bench`` begin anew."""
    assert ending(KeyboardInterrupt(), ["export", "runs/photos"]) == 130
    assert "interrupted; run the same command again to go on\n" in capsys.readouterr().err
    for argv in (["bench", "m.onnx"], ["predict", "m.onnx", "a.png"], []):
        assert ending(KeyboardInterrupt(), argv) == 130
        assert capsys.readouterr().err == "smidgen: interrupted\n"


def test_a_bug_of_ours_is_one_line_and_its_traceback_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise ZeroDivisionError("planted\nin two lines")
    except ZeroDivisionError as error:
        assert ending(error, ["train", "x"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("smidgen: unexpected ZeroDivisionError: planted in two lines: please ")
    assert line.count("\n") == 1
    path = Path(line.strip().rpartition(" ")[2])
    text = path.read_text(encoding="utf-8")
    path.unlink()
    assert text.startswith("smidgen train x\nTraceback")
    assert "planted" in text


def test_debugging_shows_the_traceback(tmp_path: Path) -> None:
    model = tmp_path / "not-a-model.onnx"
    model.write_text("hello")
    plain = process("inspect", str(model))
    assert (plain.returncode, plain.stderr.count("\n")) == (1, 1)
    loud = process("inspect", str(model), SMIDGEN_DEBUG="1")
    assert "Traceback" in loud.stderr


def test_closed_streams_are_no_error() -> None:
    """Python has None for them; a complaint must not land on standard output instead."""
    program = f"{sys.executable} -m smidgen.cli"
    for line, status, out, err in (
        (f"{program} --version >&-", 0, "", ""),
        (f"{program} bench nowhere.onnx 2>&-", 2, "", ""),
        (f"{program} bench nowhere.onnx >&-", 2, "", "smidgen: nowhere.onnx: no such"),
    ):
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (status, out)
        assert done.stderr.startswith(err)
        assert "Traceback" not in done.stderr and "unexpected" not in done.stderr


def test_a_bug_with_a_name_that_is_not_utf8_is_still_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = os.fsdecode(b"caf\xe9")
    assert ending(ZeroDivisionError("planted"), ["train", name]) == 1
    path = Path(capsys.readouterr().err.strip().rpartition(" ")[2])
    assert path.read_text(encoding="utf-8").startswith("smidgen train caf\\udce9\n")
    path.unlink()


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = f"{sys.executable} -m smidgen.cli run --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 141)
    assert done.stderr == ""
