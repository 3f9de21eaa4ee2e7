"""The device command: output, one-line errors, exit statuses, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from smidgen.runtime import __version__
from smidgen.runtime.command import main, parser

MakeBundle = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(make_bundle: MakeBundle) -> str:
    pytest.importorskip("ai_edge_litert")
    return str(make_bundle("tflite", "int8"))


@pytest.fixture
def photo(tmp_path: Path, photo_png: bytes) -> str:
    path = tmp_path / "photo.png"
    path.write_bytes(photo_png)
    return str(path)


def command(*arguments: str, **options: Any) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "smidgen.runtime", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_classify(model: str, photo: str, capsys: Capture) -> None:
    assert main(["classify", model, photo, photo, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{photo}: red 90.6%, blue 7.8%"] * 2


def test_standard_error_stays_empty(model: str, photo: str) -> None:
    for arguments in (("classify", model, photo), ("selftest", model), ("bench", model)):
        done = command(*arguments)
        assert (done.returncode, done.stderr) == (0, "")


def test_classify_as_json_lines(model: str, photo: str, capsys: Capture) -> None:
    assert main(["classify", model, photo, photo, "--json", "--top", "3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2
    assert rows[0]["image"] == photo
    assert rows[0]["label"] == "red"
    assert [one["label"] for one in rows[0]["top"]] == ["red", "blue", "grün"]
    assert set(rows[0]["timings"]) == {"decode_ns", "preprocess_ns", "inference_ns"}


def test_a_bad_image_is_reported_and_the_rest_goes_on(
    model: str, photo: str, capsys: Capture
) -> None:
    assert main(["classify", model, photo, model, "absent.jpg", photo]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    errors = captured.err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("smidgen-runtime: error: ") for line in errors)


def test_an_unsure_answer_is_marked(make_bundle: MakeBundle, photo: str, capsys: Capture) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["classify", str(make_bundle("onnx", abstain_below=0.99)), photo]) == 0
    assert capsys.readouterr().out == f"{photo}: red 90.8% (unsure)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify", "absent.tflite", "x.png"],
        ["selftest", "absent.tflite"],
        ["info", "absent.tflite"],
        ["bench", "absent.tflite"],
        ["classify", __file__, "x.png"],
    ],
)
def test_failures_are_one_line(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("smidgen-runtime: error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["clasify"],
        ["classify", "m"],
        ["classify", "m", "i", "--top", "0"],
        ["bench", "m", "--runs", "x"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"smidgen-runtime {__version__}\n"


def test_unknown_backend(model: str, photo: str, capsys: Capture) -> None:
    assert main(["classify", model, photo, "--backend", "lite-rt"]) == 1
    assert "did you mean 'litert'?" in capsys.readouterr().err


def test_selftest(model: str, capsys: Capture) -> None:
    assert main(["selftest", model]) == 0
    assert capsys.readouterr().out.count("  ok   ") == 4
    assert main(["selftest", model, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert [stage["name"] for stage in report["stages"]] == ["image", "tensor", "scores", "label"]


def test_a_failed_selftest_exits_1(make_bundle: MakeBundle, capsys: Capture) -> None:
    import dataclasses

    from smidgen.runtime import Bundle

    pytest.importorskip("ai_edge_litert")
    golden = Bundle.open(make_bundle("tflite")).manifest.golden
    assert golden is not None
    path = make_bundle("tflite", golden=dataclasses.replace(golden, label="blue"))
    assert main(["selftest", str(path)]) == 1
    captured = capsys.readouterr()
    assert "FAIL label: 'red', expected 'blue'" in captured.out
    assert "do not trust its answers" in captured.err


def test_info(model: str, capsys: Capture) -> None:
    assert main(["info", model]) == 0
    text = capsys.readouterr().out
    assert "int8 .tflite" in text
    assert "8 x 8 RGB" in text
    assert main(["info", model, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["file_bytes"] == Path(model).stat().st_size
    assert facts["manifest"]["labels"] == ["red", "grün", "blue"]


def test_bench(model: str, photo: str, capsys: Capture) -> None:
    assert main(["bench", model, "--json", "--runs", "3", "--warmup", "0"]) == 0
    sample = json.loads(capsys.readouterr().out)
    assert len(sample["inference_ns"]) == 3
    assert sample["engine"] == "litert"
    assert main(["bench", model, "--runs", "3", "--image", photo]) == 0
    assert "median of 3" in capsys.readouterr().out


def test_a_reader_that_leaves_early(model: str, photo: str) -> None:
    script = f"{sys.executable} -m smidgen.runtime classify {model} {photo} {photo} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_closed_streams_are_no_error(model: str) -> None:
    """Python has None for them; a complaint must not land on standard output instead."""
    program = f"{sys.executable} -m smidgen.runtime info"
    for line, status in ((f"{program} {model} >&-", 0), (f"{program} absent.tflite 2>&-", 1)):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk(model: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "smidgen.runtime", "info", model],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_a_terminal_without_unicode(model: str, photo: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = command("classify", model, photo, "--top", "3", env=environment)
    assert done.returncode == 0
    assert "gr\\xfcn" in done.stdout


def test_ctrl_c_is_130(model: str) -> None:
    """As soon as all is imported, which Python tells on stderr."""
    program = ["-X", "importtime", "-m", "smidgen.runtime", "bench", model, "--runs", "1000000"]
    process = subprocess.Popen(
        [sys.executable, *program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        while not (line := process.stderr.readline()).rstrip().endswith("smidgen.runtime.command"):
            assert line, "it ended"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error


def test_help_names_every_command() -> None:
    text = parser().format_help()
    assert all(name in text for name in ("classify", "selftest", "info", "bench"))
