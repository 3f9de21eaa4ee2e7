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


def test_standard_input(model: str, photo_png: bytes) -> None:
    arguments = [sys.executable, "-m", "smidgen.runtime", "classify", model, "-"]
    done = subprocess.run(arguments, input=photo_png, capture_output=True, check=True)
    assert done.stdout == b"-: red 90.6%\n"
    done = subprocess.run(arguments, input=b"no picture", capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_a_folder_is_the_pictures_in_it(
    model: str, photo_png: bytes, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "photos"
    names = ("b/2.PNG", "a.png", ".hidden/3.png", "notes.txt", ".4.png", "b/1.png")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(photo_png)
    assert main(["classify", model, str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [str(Path(line.partition(": ")[0]).relative_to(folder)) for line in lines]
    assert found == ["a.png", "b/1.png", "b/2.PNG"]
    (tmp_path / "empty").mkdir()
    assert main(["classify", model, str(tmp_path / "empty")]) == 1
    assert "no pictures in this folder" in capsys.readouterr().err


def test_an_unsure_answer_can_be_a_status(
    make_bundle: MakeBundle, photo: str, capsys: Capture
) -> None:
    pytest.importorskip("onnxruntime")
    unsure = str(make_bundle("onnx", abstain_below=0.99))
    assert main(["classify", unsure, photo]) == 0
    assert main(["classify", unsure, photo, "--fail-unsure"]) == 3
    assert main(["classify", unsure, photo, "absent.png", "--fail-unsure"]) == 1
    sure = str(make_bundle("onnx", abstain_below=0.5))
    capsys.readouterr()
    assert main(["classify", sure, photo, "--fail-unsure"]) == 0
    assert capsys.readouterr() == (f"{photo}: red 90.8%\n", "")


FAKE_CV2 = """
import numpy as np

class VideoCapture:
    def __init__(self, source):
        self.left, self.source = 3, source
    def isOpened(self):
        return self.source != 9
    def read(self):
        self.left -= 1
        colour = (0, 0, 255) if self.left > 0 else (255, 0, 0)  # BGR
        return self.left >= 0, np.full((16, 24, 3), colour, np.uint8)
    def release(self):
        pass
"""


def test_frames_of_a_video(model: str, tmp_path: Path) -> None:
    """With a stand-in for OpenCV: two red frames, then a blue one."""
    (tmp_path / "cv2.py").write_text(FAKE_CV2)
    (tmp_path / "clip.avi").write_bytes(b"")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    clip = ("classify", model, "--camera", str(tmp_path / "clip.avi"))
    done = command(*clip, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["0:", "red"], ["1:", "red"], ["2:", "blue"],
    ]  # fmt: skip
    done = command(*clip, "--smoothing", "0.9", "--json", env=environment)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["frame"], row["label"]) for row in rows] == [(0, "red"), (1, "red"), (2, "red")]
    done = command("classify", model, "--camera", "9", env=environment)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "camera 9 cannot be opened" in done.stderr


@pytest.mark.parametrize("camera", ["x" * 5000, "9" * 20, "a\0b", "absent.avi", ""])
def test_no_such_video(model: str, camera: str, capsys: Capture) -> None:
    assert main(["classify", model, "--camera", camera]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("arguments", [[], ["photo.png", "--camera", "0"]])
def test_either_pictures_or_a_camera(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["classify", "model.tflite", *arguments])
    assert caught.value.code == 2
    assert "expected pictures, or --camera N" in capsys.readouterr().err


def test_a_trusted_key(model: str, photo: str, tmp_path: Path, capsys: Capture) -> None:
    from smidgen.export.signing import new_key_pair, signed

    private, public = new_key_pair()
    key = tmp_path / "key.pem"
    key.write_bytes(public)
    for arguments in (
        ["classify", model, photo],
        ["selftest", model],
        ["bench", model, "--runs=1"],
    ):
        assert main([*arguments, "--trusted-key", str(key)]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "not signed" in captured.err
    main(["info", model])
    assert "signature   none\n" in capsys.readouterr().out
    Path(model).write_bytes(signed(Path(model).read_bytes(), private))
    main(["info", model])
    assert "signature   not verified; give the signer's key" in capsys.readouterr().out
    assert main(["info", model, "--json", "--trusted-key", str(key)]) == 0
    assert json.loads(capsys.readouterr().out)["signature"] == "valid"
    assert main(["classify", model, photo, "--trusted-key", str(key)]) == 0
    assert main(["info", model, "--trusted-key", "absent.pem"]) == 1


def test_engine_options(model: str, photo: str) -> None:
    for option in ("--isolate", "--delegate=no-xnnpack", "--decoder=reference"):
        done = command("classify", model, photo, option)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{photo}: red 90.6%\n", "")
    for option in ("--delegate=absent", "--provider=CUDAExecutionProvider"):
        done = command("classify", model, photo, option)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_threads_are_a_number_or_auto(model: str, photo: str, capsys: Capture) -> None:
    for threads in ("1", "2", "auto"):
        assert main(["classify", model, photo, photo, "--threads", threads]) == 0
    with pytest.raises(SystemExit):
        main(["classify", model, photo, "--threads", "many"])
    assert "--threads" in capsys.readouterr().err


def test_our_own_warnings_are_a_line_and_others_silent(capsys: Capture) -> None:
    import warnings

    from smidgen.runtime import command as module
    from smidgen.runtime.errors import SlowEngineWarning

    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.showwarning = module.show_warning
        warnings.simplefilter("always")
        warnings.warn("EXIF is odd", UserWarning, stacklevel=1)
        warnings.warn("20 times slower here", SlowEngineWarning, stacklevel=1)
    assert capsys.readouterr().err == "smidgen-runtime: warning: 20 times slower here\n"
    assert warnings.showwarning is before


def test_a_reader_that_leaves_early(model: str, photo: str) -> None:
    script = f"{sys.executable} -m smidgen.runtime classify {model} {photo} {photo} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_closed_streams_are_no_error(model: str) -> None:
    """Python has None for them; a complaint must not land on standard output instead."""
    program = f"{sys.executable} -m smidgen.runtime"
    lines = ((f"{program} info {model} >&-", 0), (f"{program} info absent.tflite 2>&-", 1))
    for line, status in lines:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_closed_standard_input_is_an_empty_picture(model: str) -> None:
    line = f"{sys.executable} -m smidgen.runtime classify {model} - <&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


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
    assert all(name in text for name in ("classify", "selftest", "info", "bench", "doctor"))
    assert all(f"\n  {status}  " in text for status in (0, 1, 2, 3, 130))


def test_a_folder_of_models_is_updated_and_rolled_back(
    make_bundle: MakeBundle, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("ai_edge_litert")
    store, names = str(tmp_path / "store"), []
    for scheme in ("int8", "float32"):
        assert main(["update", store, str(make_bundle("tflite", scheme)), "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        assert Path(made["path"]).is_file()
        assert made["confirmed"] is False
        names.append(Path(made["path"]).name)
    assert main(["rollback", store]) == 0
    assert capsys.readouterr().out == f"{store}: now {names[0]}\n"
    assert main(["rollback", store]) == 1
    assert "holds no previous model" in capsys.readouterr().err


def test_what_is_no_bundle_changes_no_store(tmp_path: Path, capsys: Capture) -> None:
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(b"no model")
    assert main(["update", str(tmp_path / "store"), str(wrong)]) == 1
    assert "wrong.tflite" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
