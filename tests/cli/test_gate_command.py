"""``smidgen gate`` through the command: statuses, files, and everything that is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from smidgen.cli.main import run
from smidgen.runtime.manifest import Preprocessing, Provenance

pytest.importorskip("onnxruntime")
Image = pytest.importorskip("PIL.Image")

COLOURS = ("red", "green", "blue")
MakeBundle = Callable[..., Path]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 noisy pictures a class; the largest channel's mean is the class."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for index, label in enumerate(COLOURS):
        (folder / label).mkdir()
        for number in range(45):
            pixels = random.integers(60, 160, (10, 10, 3))
            pixels[..., index] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


def gate(*words: object) -> int:
    return run(["gate", *map(str, words)])


def said(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """The last line on stderr is one line of ours that has the words."""
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("smidgen: ")
    assert words in last
    assert "Traceback" not in captured.err


def test_the_three_statuses_and_the_files(
    make_bundle: MakeBundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_bundle("old.onnx")
    new = make_bundle("new.onnx", preprocessing=_other_pixels())
    junit, results = tmp_path / "gate.xml", tmp_path / "gate.json"
    words = (new, "--against", old, "--images", photos)
    assert gate(*words, "--max-drop", 5, "--junit", junit, "--json", results) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith("verdict             pass: at most ")
    assert "135 from" in captured.out
    assert json.loads(results.read_text())["verdict"]["lost"] == 0
    assert ElementTree.parse(junit).getroot().attrib["failures"] == "0"
    assert gate(*words, "--max-drop", 0.5, "--junit", junit) == 2
    assert "undecided: " in capsys.readouterr().out
    assert ElementTree.parse(junit).getroot().attrib["errors"] == "1"
    assert gate(*words, "--max-drop", 0.5, "--parity", 0.5) == 0
    capsys.readouterr()
    assert gate(*words, "--parity", 1e-9, "--json", "-") == 1
    content = json.loads(capsys.readouterr().out)  # nothing but the JSON
    assert (content["result"], content["limits"]["parity"]) == ("fail", 1e-9)


def _other_pixels() -> Preprocessing:
    """Each file decodes by its own manifest: another resize must not matter."""
    return Preprocessing(width=8, height=8, fit="stretch", resample="bilinear")


def test_a_regression_fails(
    make_bundle: MakeBundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The candidate's own pre-processing shows it nothing but a grey spot in the middle."""
    old = make_bundle("old.onnx")
    blind = make_bundle("blind.onnx", preprocessing=_middle())
    for label in COLOURS:
        (tmp_path / "framed" / label).mkdir(parents=True)
        for path in sorted((photos / label).glob("*.png")):
            pixels = np.asarray(Image.open(path)).repeat(4, 0).repeat(4, 1).copy()
            pixels[12:28, 12:28] = 128  # all that the candidate looks at, and its filter
            Image.fromarray(pixels).save(tmp_path / "framed" / label / path.name)
    junit = tmp_path / "gate.xml"
    framed = tmp_path / "framed"
    assert gate(blind, "--against", old, "--images", framed, "--junit", junit) == 1
    assert "fail: at least " in capsys.readouterr().out
    assert ElementTree.parse(junit).getroot().attrib["failures"] == "1"


def _middle() -> Preprocessing:
    return Preprocessing(width=8, height=8, crop_fraction=0.1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.onnx"], "the following arguments are required: --against"),
        (["a.onnx", "--aganist", "b"], "did you mean --against?"),
        (["a.onnx", "--against", __file__], "on which images? add --images FOLDER"),
        (["a.onnx", "--against", "b.onnx"], "b.onnx: no such file or folder"),
        (["a.onnx", "--against", "b.onnx", "--images", "."], "b.onnx: no such file or folder"),
        (["a.onnx", "--against", ".", "--images", "nowhere"], "nowhere: no such folder"),
        (["a.onnx", "--against", ".", "--images", ".", "--run", "."], "name one of them"),
        (["a.onnx", "--against", ".", "--max-drop", "200"], "a number from 0 to 100, got '200'"),
        (["a.onnx", "--against", ".", "--parity", "x"], "a number from 0 to 1, got 'x'"),
        (["a.onnx", "--against", ".", "--junit", "-"], "only --json can go to stdout"),
        (["a.onnx", "--against", ".", "--json", "."], ". is a folder"),
        (["a.onnx", "--against", ".", "--json", "no/such.json"], "cannot write no/such.json"),
        (["a.onnx", "--against", ".", "--junit", "/proc/x.xml"], "cannot write /proc/x.xml"),
    ],
)
def test_a_wrong_command_line_has_a_status_of_its_own(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 says "undecided", so that a misspelt flag must not."""
    assert gate(*words) == 64
    said(capsys, expected)


def test_other_labels_are_refused_and_ci_sees_it(
    make_bundle: MakeBundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_bundle("old.onnx")
    new = make_bundle("new.onnx", labels=("red", "blue", "green"), golden=None)
    junit, results = tmp_path / "gate.xml", tmp_path / "gate.json"
    words = (new, "--against", old, "--images", photos, "--junit", junit, "--json", results)
    assert gate(*words) == 1
    said(capsys, "it has them in another order (number 2 is 'blue', was 'green')")
    assert ElementTree.parse(junit).getroot().attrib["errors"] == "1"
    assert json.loads(results.read_text())["result"] == "error"


def test_a_damaged_candidate_is_refused_and_ci_sees_it(
    make_bundle: MakeBundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, junit = make_bundle("old.onnx"), tmp_path / "gate.xml"
    half = tmp_path / "half.onnx"
    half.write_bytes(old.read_bytes()[:-200])
    assert gate(half, "--against", old, "--images", photos, "--junit", junit) == 1
    said(capsys, "half.onnx")
    assert ElementTree.parse(junit).getroot().attrib["errors"] == "1"


def test_folders_of_unknown_classes_are_refused(
    make_bundle: MakeBundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_bundle("old.onnx")
    (tmp_path / "images").mkdir()
    for label, name in (("red", "red"), ("blue", "bleu")):
        (tmp_path / "images" / name).symlink_to(photos / label)
    assert gate(old, "--against", old, "--images", tmp_path / "images") == 1
    said(capsys, "has the class 'bleu', which the files do not know; did you mean 'blue'?")


def test_an_absent_class_and_a_doubtful_image_are_said(
    make_bundle: MakeBundle, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, images = make_bundle("old.onnx"), tmp_path / "images"
    for label in ("red", "blue"):
        (images / label).mkdir(parents=True)
        for path in sorted((photos / label).glob("*.png"))[:30]:
            (images / label / path.name).write_bytes(path.read_bytes())
    twice = photos / "red" / "44.png"
    for label in ("red", "blue"):
        (images / label / "twice.png").write_bytes(twice.read_bytes())
    assert gate(old, "--against", old, "--images", images, "--max-drop", 10) == 0
    captured = capsys.readouterr()
    assert "no images of 1 labels: green" in captured.err
    assert "the same content is in the classes blue, red" in captured.err
    assert "60 from" in captured.out


def test_the_candidate_must_come_from_the_run(
    make_bundle: MakeBundle, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_bundle("old.onnx")
    assert gate(old, "--against", old, "--run", finished_run) == 1
    said(capsys, "was made of other images than the Run")
    assert gate(old, "--against", old, "--run", finished_run.parent) == 1
    said(capsys, "not a Run folder")


def test_the_test_split_of_a_run(
    make_bundle: MakeBundle,
    finished_run: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from smidgen.train.run import Run

    dataset = Run(finished_run).dataset()
    origin = Provenance("2026-11-22T00:00:00Z", "tiny", "test", "", "aa", dataset.sha256)
    new = make_bundle("new.onnx", provenance=origin)
    words = (new, "--against", make_bundle("old.onnx"), "--run", finished_run)
    assert gate(*words, "--max-drop", 20) == 0
    assert f"{len(dataset.test)} from the test split of" in capsys.readouterr().out
    # the images of the training are refused where a Run is there to tell
    same = make_bundle("same.onnx", labels=dataset.labels, golden=None)
    assert gate(same, "--against", finished_run, "--images", photos) == 1
    said(capsys, "images were trained on by")


@pytest.fixture
def finished_run(photos: Path, tmp_path: Path) -> Path:
    """What a Run leaves behind, as far as the gate reads it before it loads the network."""
    from smidgen.train.data.scan import scan
    from smidgen.train.recipe import DataRecipe, TrainRecipe
    from smidgen.train.run import Run

    run_folder = Run(tmp_path / "runs" / "photos")
    data = DataRecipe(folder=str(photos), split=(50, 10, 40), image_size=32)
    run_folder.keep_recipe(TrainRecipe(data=data))
    run_folder.keep_dataset(scan(photos, data))
    (run_folder.folder / "model.keras").write_bytes(b"weights")
    (run_folder.folder / "provenance.json").write_text("{}")
    (run_folder.folder / "test_metrics.json").write_text("{}")
    return run_folder.folder
