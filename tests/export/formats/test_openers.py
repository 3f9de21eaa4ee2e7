"""Other programs open the files that claim to fit them, and give the labels that our runtime gives.

OpenVINO and tflite-runtime need an environment of their own, named by SMIDGEN_TEST_OPENERS_PYTHON
(locks/openers.txt); ONNX Runtime for Node a folder with node_modules, named by
SMIDGEN_TEST_NODE_OPENERS (tests/export/formats/node). MediaPipe's test is test_mediapipe.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smidgen.export.pictures import pixel_batches
from smidgen.runtime import Classifier

INTERPRETER = os.environ.get("SMIDGEN_TEST_OPENERS_PYTHON", "")
NODE_FOLDER = os.environ.get("SMIDGEN_TEST_NODE_OPENERS", "")
HERE = Path(__file__).parent
BENCHMARK = Path(sys.executable).with_name("litert-benchmark")

needs_openers = pytest.mark.skipif(
    not INTERPRETER, reason="SMIDGEN_TEST_OPENERS_PYTHON names no Python with openvino"
)
needs_node = pytest.mark.skipif(
    not (NODE_FOLDER and Path(NODE_FOLDER, "node_modules").is_dir() and shutil.which("node")),
    reason="no node, or SMIDGEN_TEST_NODE_OPENERS names no folder with onnxruntime-web",
)
pytestmark = pytest.mark.slow

FLOAT_DIFFERENCE = 1e-4
INTEGER_DIFFERENCE = {"openvino": 24 / 256}
"""OpenVINO fuses and rounds as it likes: measured 16 steps of 1/256 on one picture of 40, mean 1.5.
The others differ from LiteRT's kernels by up to 5 steps on such a picture, mean 0.4."""
KERNEL_DIFFERENCE = 8 / 256


@pytest.fixture(scope="module")
def pixels(float_model, tmp_path_factory) -> Path:
    """40 pictures that were not used for calibration, ``(40, 32, 32, 3) uint8``."""
    rows = pixel_batches(float_model.held_out, float_model.preprocessing, 16)
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    np.save(path, np.concatenate(list(rows)))
    return path


def run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers_of(program: str, model: Path, pixels: Path) -> np.ndarray:
    """``(N, classes) float32`` probabilities."""
    interpreter = sys.executable if program == "tflite-micro" else INTERPRETER
    script = str(HERE / "opener_answers.py")
    said = run([interpreter, script, program, str(model), str(pixels)])
    rows = np.array(json.loads(said.splitlines()[-1]), np.float64)
    quantized = model.suffix == ".tflite" and "int8" in model.name
    return rows / 256 if quantized else rows


def node_answers(model: Path, pixels: Path, folder: Path) -> np.ndarray:
    raw = folder / "pixels.bin"
    raw.write_bytes(np.load(pixels).tobytes())
    script = str(HERE / "node" / "answers.mjs")
    return np.array(
        json.loads(run(["node", script, str(model), str(raw), "32", "32"], NODE_FOLDER))
    )


def check(theirs: np.ndarray, model: Path, pixels: Path, program: str = "") -> None:
    """Equal labels, but where ours is a near tie; scores as near as the number format allows."""
    with Classifier(model) as classifier:
        ours = classifier.scores(np.load(pixels))
    allowed = FLOAT_DIFFERENCE
    if "int8" in model.name:
        allowed = INTEGER_DIFFERENCE.get(program, KERNEL_DIFFERENCE)
    difference = np.abs(theirs - ours)
    assert difference.max() <= allowed
    assert difference.mean() <= allowed / 8
    ranked = np.sort(ours, axis=1)
    flipped = theirs.argmax(1) != ours.argmax(1)
    assert (ranked[:, -1] - ranked[:, -2])[flipped].max(initial=0) <= allowed / 2
    assert flipped.sum() <= (2 if "int8" in model.name else 0)  # of 40, all of them near ties
    assert len(set(ours.argmax(1))) >= 3  # a constant answer proves nothing


CLAIMS = [
    ("openvino", "tflite", "float32"),
    ("openvino", "tflite", "int8"),
    ("openvino", "onnx", "float32"),
    ("openvino", "onnx", "int8"),
    ("tflite-runtime", "tflite", "float32"),
    ("tflite-runtime", "tflite", "int8"),
    ("tflite-micro", "tflite", "int8"),
]


@pytest.mark.parametrize(("program", "form", "scheme"), CLAIMS)
def test_same_labels_and_scores_on_40_pictures(program, form, scheme, small_bundles, pixels):
    if program == "tflite-micro":
        pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    elif not INTERPRETER:
        pytest.skip("SMIDGEN_TEST_OPENERS_PYTHON names no Python with openvino, tflite-runtime")
    model = small_bundles[form, scheme]
    check(answers_of(program, model, pixels), model, pixels, program)


@needs_node
@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_node_gives_the_same_labels_and_scores(scheme, small_bundles, pixels, tmp_path):
    model = small_bundles["onnx", scheme]
    check(node_answers(model, pixels, tmp_path), model, pixels)


@pytest.mark.parametrize("fault", ["BGR", "shuffled labels", "upside down"])
def test_a_fault_in_what_they_are_fed_or_say_is_seen(fault, small_bundles, pixels, tmp_path):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    model, fed = small_bundles["tflite", "int8"], tmp_path / "fed.npy"
    right = np.load(pixels)
    wrong = {"BGR": right[..., ::-1], "upside down": right[:, ::-1]}.get(fault, right)
    np.save(fed, np.ascontiguousarray(wrong))
    theirs = answers_of("tflite-micro", model, fed)
    with pytest.raises(AssertionError):
        check(np.roll(theirs, 1, axis=1) if fault == "shuffled labels" else theirs, model, pixels)


def test_tflite_micro_does_not_run_the_float32_file_and_the_target_check_says_why(
    small_bundles, pixels
):
    """It opens the file, and fails on the first picture: nothing but a check before tells."""
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    from smidgen.export.formats.runtimes import check_target

    model = small_bundles["tflite", "float32"]
    with pytest.raises(AssertionError, match="invocation failed"):
        answers_of("tflite-micro", model, pixels)
    (problem,) = check_target(model.read_bytes(), "tflite", "tflite-micro")
    assert (problem.operator, problem.found) == ("CAST", "from uint8")


@needs_openers
def test_tflite_runtime_refuses_what_the_target_check_refuses(tmp_path, small_bundles):
    """FULLY_CONNECTED version 12: what the converter's dynamic-range files need."""
    from smidgen.export.formats.runtimes import check_target
    from smidgen.export.formats.tflite_file import operator_name, read_model, write_model

    for number, accepted in ((10, True), (11, False), (12, False)):
        model = read_model(small_bundles["tflite", "float32"].read_bytes())
        for code in model.operatorCodes:
            if operator_name(code) == "FULLY_CONNECTED":
                code.version = number
        path = tmp_path / f"version-{number}.tflite"
        path.write_bytes(write_model(model))
        np.save(tmp_path / "one.npy", np.zeros((1, 32, 32, 3), np.uint8))
        script = str(HERE / "opener_answers.py")
        done = subprocess.run(
            [INTERPRETER, script, "tflite-runtime", str(path), str(tmp_path / "one.npy")],
            capture_output=True,
            text=True,
            check=False,
        )
        problems = check_target(path.read_bytes(), "tflite", "tflite-runtime==2.14")
        assert (done.returncode == 0) == (not problems) == accepted, done.stderr
        assert accepted or f"'FULLY_CONNECTED' version '{number}'" in done.stderr


@pytest.mark.skipif(not BENCHMARK.exists(), reason="ai-edge-litert brings no litert-benchmark here")
@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_litert_benchmark_runs_the_file(scheme, small_bundles, tmp_path):
    """LiteRT's own benchmark_litert_model, as its wheel installs it."""
    model, report = small_bundles["tflite", scheme], tmp_path / "report.json"
    counts = ["--num_runs=3", "--warmup_runs=1", "--num_threads=1"]
    run([str(BENCHMARK), f"--model={model}", *counts, f"--result_json={report}"])
    latency = json.loads(report.read_text())["latency"]
    assert latency["num_runs"] == 3 and latency["init_ms"] > 0
