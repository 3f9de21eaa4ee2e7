"""``predict``, ``inspect`` and ``bench`` on tiny real Bundles."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from smidgen.bench.measurement import read
from smidgen.cli.main import run
from smidgen.runtime.manifest import Verdict

pytest.importorskip("onnxruntime")

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
FAILED = Verdict("fail", 400, 98.5, 96.0, 2.5, 1.75, 3.25, 1.0, 12, 0.02, 0.4)


def test_predict_prints_picture_label_and_score(
    make_bundle: Make, picture: Path, capsys: Capture
) -> None:
    assert run(["predict", str(make_bundle()), str(picture)]) == 0
    # means 30, 0, 220: softmax of (30, 0, 220) / 32
    assert capsys.readouterr().out == f"{picture}\tblue\t0.9963\n"


def test_predict_top_and_json(make_bundle: Make, picture: Path, capsys: Capture) -> None:
    model = str(make_bundle(abstain_below=0.999))
    assert run(["predict", model, str(picture), "--top", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["label"], answer["abstained"]) == ("blue", True)
    assert [item["label"] for item in answer["top"]] == ["blue", "red"]
    assert answer["score"] == pytest.approx(0.99634, abs=1e-4)
    assert run(["predict", model, str(picture), "--top", "2"]) == 0
    assert capsys.readouterr().out == (
        f"{picture}\tblue\t0.9963\tbelow the model's threshold\n"
        f"{picture}\tred\t0.0026\tbelow the model's threshold\n"
    )


def test_predict_goes_on_after_a_bad_picture(
    make_bundle: Make, picture: Path, capsys: Capture
) -> None:
    torn = picture.with_name("torn.png")
    torn.write_bytes(picture.read_bytes()[:40])
    assert run(["predict", str(make_bundle()), str(torn), "nowhere.png", str(picture)]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{picture}\tblue\t0.9963\n"
    assert captured.err.count("\n") == 2
    assert "torn.png" in captured.err
    assert "nowhere.png" in captured.err


@pytest.mark.skipif(sys.platform == "darwin", reason="needs a disk that takes any file name")
def test_names_that_are_not_utf8(make_bundle: Make, picture: Path) -> None:
    """In processes of their own, whose standard output refuses such names unless told otherwise."""
    model = make_bundle(os.fsdecode(b"m\xe9.onnx"))
    image = picture.rename(picture.with_name(os.fsdecode(b"caf\xe9.png")))
    bench = ["bench", model, "--rounds", "1", "--runs", "1", "--warmup", "0"]
    for argv in (["predict", model, image], ["predict", model, image, "--json"],
                 ["inspect", model], bench):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "smidgen.cli", *map(str, argv)],
            capture_output=True, encoding="utf-8", timeout=60, check=False,
            env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "\\udce9" in done.stdout
    (row,) = read(model.parent / "bench" / "measurements.jsonl")
    assert row.bundle_file == model.name
    assert "m\\udce9.onnx" in (model.parent / "bench" / "report.md").read_text(encoding="utf-8")


def test_predict_takes_the_best_bundle_of_a_run(
    make_bundle: Make, picture: Path, capsys: Capture, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    long = tuple(f"label {i} {'x' * 40}" for i in range(3))
    make_bundle("run/bundles/run-float32.onnx", labels=long)
    make_bundle("run/bundles/run-int8.onnx", scheme="int8")
    make_bundle("run/bundles/a.gate-failed.onnx", scheme="int8", verdict=FAILED, golden=None)
    assert run(["predict", str(folder), str(picture)]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"smidgen: {folder / 'bundles' / 'run-int8.onnx'}\n"
    assert "\tblue\t" in captured.out
    (folder / "bundles" / "run-int8.onnx").unlink()
    (folder / "bundles" / "run-float32.onnx").unlink()
    assert run(["predict", str(folder), str(picture)]) == 1
    assert "no Bundle in" in capsys.readouterr().err
    shutil.rmtree(folder / "bundles")
    assert run(["predict", str(folder), str(picture)]) == 1
    assert f"make them with `smidgen export {folder}`" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "inspect"])
def test_files_that_are_no_bundle_are_one_line(
    command: str, make_bundle: Make, picture: Path, capsys: Capture
) -> None:
    whole = make_bundle().read_bytes()
    images = [str(picture)] if command == "predict" else []
    for name, data in (
        ("half.onnx", whole[: len(whole) // 2]), ("text.onnx", b"hello"), ("empty.onnx", b""),
        ("changed.onnx", whole.replace(b"ReduceMean", b"ReduceMin_")),
    ):  # fmt: skip
        path = picture.with_name(name)
        path.write_bytes(data)
        assert run([command, str(path), *images]) == 1
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert name in captured.err


def test_inspect_shows_temperature_and_threshold(make_bundle: Make, capsys: Capture) -> None:
    assert run(["inspect", str(make_bundle(temperature=1.3125, abstain_below=0.62))]) == 0
    assert "decisions   temperature 1.3125, abstains below 0.62\n" in capsys.readouterr().out


def test_inspect_shows_what_the_file_holds(make_bundle: Make, capsys: Capture) -> None:
    path = make_bundle()
    assert run(["inspect", str(path), "--selftest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for line in (
        f"size        {path.stat().st_size:,} bytes",
        f"sha256      {digest}",
        "model       tiny, onnx, float32",
        "labels      3: red, green, blue",
        "input       image: uint8 NHWC any x 8 x 8 x 3, 0 to 255",
        "verdict     pass: top-1 98.25 %, drop 0.25 points [-0.25, 0.75], allowed 1; 3 of 400 "
        "answers changed",
        "decisions   temperature 1, never abstains",
        "operators   4 in all",
        "          1 ReduceMean",
    ):
        assert line in lines
    assert any(line.startswith("selftest    label passed") for line in lines)


def test_inspect_as_json_leaves_out_the_golden_picture(make_bundle: Make, capsys: Capture) -> None:
    path = make_bundle()
    assert run(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["operators"] == {"Cast": 1, "Mul": 1, "ReduceMean": 1, "Softmax": 1}
    assert facts["file_bytes"] == path.stat().st_size
    assert facts["manifest"]["golden"]["label"] == "red"
    assert "image_png" not in facts["manifest"]["golden"]


def test_bench_measures_keeps_and_prints(
    make_bundle: Make, capsys: Capture, tmp_path: Path
) -> None:
    float32 = make_bundle("m-float32.onnx")
    int8 = make_bundle("m-int8.onnx", scheme="int8")
    half = tmp_path / "m-half.onnx"
    half.write_bytes(float32.read_bytes()[:500])
    argv = [str(float32), str(int8), str(half), "--rounds", "1", "--runs", "3", "--warmup", "0"]
    assert run(["bench", *argv, "--print", "json"]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert [row["bundle_file"] for row in report["rows"]] == ["m-float32.onnx", "m-int8.onnx"]
    assert [Path(f["bundle_file"]).name for f in report["failures"]] == ["m-half.onnx"]
    assert "FAILED" in captured.err
    rows = read(tmp_path / "bench" / "measurements.jsonl")
    assert [len(row.sample.inference_ns) for row in rows] == [3, 3]
    for name in ("report.txt", "report.md", "report.json"):
        assert (tmp_path / "bench" / name).stat().st_size > 500
