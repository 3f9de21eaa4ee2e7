"""The whole line at a reduced size, through the command: digits in, four verified Bundles out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from reduced_line import DEMO_RECIPE, REDUCED, Line, smidgen

from smidgen.runtime import Bundle
from smidgen.runtime.errors import BundleError

pytestmark = pytest.mark.slow

ENDINGS = ("float32.tflite", "int8.tflite", "float32.onnx", "int8.onnx")
CHANCE_PERCENT = 10.0


def test_four_bundles_that_passed_their_gate(line: Line) -> None:
    names = {path.name.split("-", 1)[1] for path in (line.folder / "bundles").glob("*.[to]*")}
    assert names == set(ENDINGS)
    verdicts = {name: Bundle.open(line.bundle(name)).manifest.verdict for name in ENDINGS}
    for name, verdict in verdicts.items():
        assert verdict is not None, name
        assert verdict.verdict == "pass", verdict
        assert 130 <= verdict.images <= 180
        assert verdict.top1_percent > 4 * CHANCE_PERCENT
        assert verdict.drop_low_points <= verdict.drop_points <= verdict.drop_high_points <= 20
    for name in ("float32.tflite", "float32.onnx"):
        changed = verdicts[name]
        assert changed is not None
        assert changed.drop_points == 0


def test_an_int8_file_is_a_third_of_its_float_file(line: Line) -> None:
    for form in ("tflite", "onnx"):
        small, large = (line.bundle(f"{scheme}.{form}").stat().st_size for scheme in _SCHEMES)
        assert 0.2 < small / large <= 0.30


_SCHEMES = ("int8", "float32")


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_bundle_passes_its_selftest_and_a_damaged_one_does_not_open(
    line: Line, ending: str, tmp_path: Path
) -> None:
    whole = line.bundle(ending)
    assert _runtime("selftest", whole).returncode == 0
    half = tmp_path / whole.name
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ended = _runtime("selftest", half)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "Traceback" not in ended.stderr


def test_the_table_the_files_and_what_to_try_next_are_printed(line: Line) -> None:
    for words in ("verdict", "load", "p50/p90", "peak", "smidgen run YOUR_FOLDER"):
        assert words in line.ended.stdout
    for ending in ENDINGS:
        assert str(line.bundle(ending)) in line.ended.stdout
    assert "smidgen-runtime classify" in line.ended.stdout
    for stage in ("train", "export", "bench"):
        assert f"{stage}: begins" in line.ended.stderr
    assert "time the int8 .onnx variants" in line.ended.stderr


def test_the_second_run_does_no_stage_again_and_prints_the_same(line: Line) -> None:
    again = smidgen(line.argv)
    assert again.status == 0, again.stderr
    for stage in ("train", "export", "bench"):
        assert f"{stage}: done before" in again.stderr
    assert again.stdout.strip() == line.ended.stdout.strip()


def test_a_gate_that_does_not_pass_fails_the_command_and_names_the_file_so(
    digits: Path, tmp_path: Path
) -> None:
    """Nothing may be lost of the float model's own answers, and 40 images cannot show that."""
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for number in range(60):
        shutil.copy(digits / str(number % 10) / f"{number:04d}.png", pictures / f"{number}.png")
    argv = ["export", "--pretrained", "efficientnet-lite0", "--images", str(pictures)]
    argv += ["--formats", "tflite", "--schemes", "int8", "--calibration-images", "20"]
    ended = smidgen([*argv, "--max-drop", "0", "--undecided", "fail", "--out", str(out)])
    assert ended.status == 1
    (path,) = out.glob("*.tflite")
    verdict = Bundle.open(path).manifest.verdict
    assert verdict is not None
    assert verdict.verdict in ("fail", "undecided")
    assert path.name.endswith("-int8.gate-failed.tflite")


def test_passes_go_through_the_command_line_and_onto_the_record(line: Line, tmp_path: Path) -> None:
    argv = ["export", str(line.folder), "--out", str(tmp_path), "--max-drop", "100"]
    argv += ["--formats", "tflite", "--schemes", "int8", "--keep-channels", "0.6"]
    argv += ["--channels-steps", "1", "--channels-epochs", "1", "--clusters", "16"]
    argv += ["--clustering-epochs", "1"]
    ended = smidgen(argv)
    assert ended.status == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    (path,) = tmp_path.glob("*.tflite")
    bundle = Bundle.open(path)
    names = [record.name for record in bundle.manifest.provenance.passes]
    assert names == ["channels", "clustering", "quantize"]
    (plain,) = (line.folder / "bundles").glob("*-int8.tflite")
    assert bundle.file_bytes < 0.7 * plain.stat().st_size
    (made,) = json.loads((tmp_path / "export.json").read_text())["bundles"]
    assert made["gzip_bytes"] < 0.65 * made["file_bytes"]  # 16 values take four bits
    assert [place.name for place in (tmp_path / "passes").iterdir() if place.is_dir()] == []
    again = smidgen(argv)
    assert "is up to date" in again.stderr
    assert again.stdout == ended.stdout


# Where the line is when Ctrl-C comes: the words on stderr to wait for, then seconds.
MOMENTS = (
    ("", 0.3),
    ("train: begins", 2.0),
    ("head 1/", 0.5),
    ("export: begins", 5.0),
    ("judge float32 .tflite", 3.0),
    ("round 1/2", 0.2),
)


def test_interrupted_anywhere_and_run_again_it_ends_well(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    argv = ["run", str(DEMO_RECIPE), "--folder", str(digits), "--out", str(folder), *REDUCED]
    argv += ["--limit", "20", "--head-epochs", "2", "--calibration-images", "20"]
    argv += ["--max-drop", "100", "--formats", "tflite"]  # no moment lies in the making of ONNX
    for words, seconds in MOMENTS:
        status, said = _interrupted(argv, words, seconds)
        assert status == 130, (words, said)
        assert "Traceback" not in said, (words, said)
        assert "interrupted" in said, (words, said)
        assert _faults(folder) == [], words
    ended = smidgen(argv)
    assert ended.status == 0, ended.stderr
    assert "train: done before" in ended.stderr
    assert _faults(folder) == []
    bundles = {path.name.split("-", 1)[1] for path in (folder / "bundles").glob("*.[to]*")}
    assert bundles == {"float32.tflite", "int8.tflite"}
    assert [path for path in folder.rglob(".*") if path.is_file()] == []


def test_a_planted_half_file_is_found(line: Line, tmp_path: Path) -> None:
    """What the interruption test looks for is really found when it is there."""
    assert _faults(line.folder) == []
    for name in ("bundles/{}-int8.onnx", "model.keras", "provenance.json", "metrics.jsonl"):
        path = line.folder / name.format(line.folder.name)
        place = tmp_path / path.name
        place.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert _faults(tmp_path) == [place.name]
        place.unlink()


def _runtime(command: str, bundle: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smidgen.runtime", command, str(bundle)],
        capture_output=True,
        text=True,
        check=False,
    )


def _interrupted(argv: list[str], words: str, seconds: float) -> tuple[int, str]:
    """Start the command, press Ctrl-C some seconds after it said the words; how it ended.

    As in a terminal, the signal goes to the command and to its stages.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "smidgen.cli", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said: list[str] = []
    heard = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for text in process.stderr:
            said.append(text)
            if words in text:
                heard.set()
        heard.set()

    listener = threading.Thread(target=listen)
    listener.start()
    if words:
        assert heard.wait(300)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    status = process.wait(60)
    listener.join(10)
    return status, "".join(said)


def _faults(folder: Path) -> list[str]:
    """The files under their final names that are not whole, by name."""
    return sorted(path.name for path in folder.rglob("[!.]*") if not _is_whole(path))


def _check_kept(path: Path) -> None:
    """An int8 file kept in passes/: no Bundle yet, but its hash stands beside it."""
    expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(path)


def _is_whole(path: Path) -> bool:
    checks: dict[str, Any] = {
        ".tflite": Bundle.open,
        ".onnx": Bundle.open,
        ".json": lambda file: json.loads(file.read_text()),
        ".jsonl": lambda file: [json.loads(text) for text in file.read_text().splitlines()],
        ".keras": lambda file: zipfile.ZipFile(file).testzip(),
        ".bin": _check_kept,
    }
    try:
        checks.get(path.suffix, lambda _: None)(path)
    except (BundleError, ValueError, zipfile.BadZipFile):
        return False
    return True
