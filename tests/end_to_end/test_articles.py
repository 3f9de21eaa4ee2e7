"""The set-ups of three published projects in miniature, through the command, on real digits.

An image-orientation classifier, cats-vs-dogs (VGG16 from scratch on images labelled by their file
names), and named characters (class folders, a frozen ensemble of two backbones).
"""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reduced_line import smidgen

from smidgen.runtime import Bundle
from smidgen.train import Run
from smidgen.train.data import SPLITS

pytestmark = pytest.mark.slow

MakeRun = Callable[..., Run]
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WITHOUT_SYMMETRY = (2, 3, 4, 5, 7)
"""Digits that no turn makes into themselves or into each other."""
TRAINED = {
    "augmentations.png", "calibration.png", "classes.png", "confusion.png", "curves.png",
    "data_report.json", "dataset.json", "metrics.jsonl", "mistakes.png", "model.keras",
    "predictions.csv", "provenance.json", "recipe.toml", "samples.png", "skipped.csv",
    "steps.jsonl", "tensorboard", "test_metrics.json",
}  # fmt: skip


def pick(digits: Path, into: Path, names: Mapping[int, str], count: int) -> Path:
    """The first ``count`` of each digit of ``names``, which says what they are called in ``into``:
    ``"two/{}.png"``, ``"two.{}.png"``."""
    for digit, name in names.items():
        for number, path in enumerate(sorted((digits / str(digit)).iterdir())[:count]):
            target = into / name.format(number)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return into


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """``make_run(folder, *flags)``: ``smidgen train`` as a user calls it.

    Two people may write the same digit alike: such images may lie in several splits.
    """

    def make(folder: Path, *flags: str) -> Run:
        out = tmp_path_factory.mktemp("articles") / "run"
        argv = ["train", str(folder), "--out", str(out), "--near-duplicates", "ignore", *flags]
        ended = smidgen(argv)
        assert ended.status == 0, ended.stderr
        assert ended.stdout == f"{out}\n"
        run = Run.open(out)
        assert {path.name for path in out.iterdir()} == TRAINED
        for path in out.glob("*.png"):
            with Image.open(path) as image:
                assert min(image.size) > 200, path.name
        return run

    return make


def predicted(run: Run, pictures: list[Path], *flags: str) -> list[str]:
    """The label of each picture as ``smidgen predict RUN IMAGE...`` prints it."""
    ended = smidgen(["predict", str(run.folder), *map(str, pictures), *flags])
    assert ended.status == 0, ended.stderr
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(path) for path in pictures]
    return [line[1] for line in lines]


def answers(run: Run) -> dict[tuple[str, int], str]:
    """What the Run itself answered in its test, by path in the images' folder and turn."""
    with open(run.predictions_path, encoding="utf-8-sig", newline="") as stream:
        return {(row["path"], int(row.get("turn") or 0)): row["predicted"]
                for row in csv.DictReader(stream)}  # fmt: skip


def logged(run: Run, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a scalar, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loaded = EventAccumulator(str(run.tensorboard_path), size_guidance={"scalars": 0, "images": 0})
    loaded.Reload()
    assert {"pictures/samples", "pictures/augmentations"} <= set(loaded.Tags()["images"])
    return [(event.step, event.value) for event in loaded.Scalars(tag)]


def shares(run: Run) -> list[float]:
    """Percentages of the different images that each split has."""
    counts = [len({e.sha256 for e in run.dataset().split(name)}) for name in SPLITS]
    return [100 * count / sum(counts) for count in counts]


@pytest.fixture(scope="module")
def upright(digits: Path, tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Run:
    """Orientation: pixel augmentation, a small head, two stages."""
    names = {digit: f"{digit}/{{}}.png" for digit in WITHOUT_SYMMETRY}
    folder = pick(digits, tmp_path_factory.mktemp("upright"), names, 160)
    return make_run(
        folder, "--labels", "orientation", "--augmentation", "pixel", "--no-horizontal-flip",
        "--split", "80,20", "--head", "mlp", "--image-size", "64", "--freeze-to", "block_05",
        "--head-epochs", "4", "--head-learning-rate", "1e-3",
        "--full-epochs", "1", "--full-learning-rate", "1e-4",
    )  # fmt: skip


def test_orientation_is_learnt_in_two_stages(upright: Run) -> None:
    result = upright.test_metrics
    assert result.top1_percent >= 70  # chance is 25; 87 where this was written
    assert [(row.stage, row.epoch) for row in upright.metrics] == [
        ("head", 1), ("head", 2), ("head", 3), ("head", 4), ("full", 1)
    ]  # fmt: skip
    assert upright.metrics[3].loss < 0.85 * upright.metrics[0].loss
    assert (upright.recipe.schedule.augmentation, upright.recipe.model.head) == ("pixel", "mlp")


def test_four_turns_of_each_image_are_tested_and_half_turns_counted_apart(upright: Run) -> None:
    dataset, result = upright.dataset(), upright.test_metrics
    assert (dataset.task, dataset.labels) == ("orientation", ("0", "90", "180", "270"))
    images = {e.sha256 for e in dataset.test}
    turns = {(e.sha256, e.turn) for e in dataset.test if e.turn == e.label}
    assert turns == {(sha256, turn) for sha256 in images for turn in range(4)}
    assert result.images == len(dataset.test) == 4 * len(images)
    assert len({e.sha256 for e in dataset.train}) == len(dataset.train)
    np.testing.assert_allclose(shares(upright), (72, 8, 20), atol=5)
    wrong, table = result.orientation, np.array(result.confusion)
    assert wrong is not None
    assert wrong.half_turn_0_180 == table[0, 2] + table[2, 0]
    assert wrong.half_turn_90_270 == table[1, 3] + table[3, 1]
    off = wrong.half_turn_0_180 + wrong.half_turn_90_270 + wrong.quarter_turn
    assert off + np.trace(table) == table.sum() == result.images
    assert wrong.half_turn_0_180_percent == pytest.approx(100 * wrong.half_turn_0_180 / table.sum())


def test_turned_pictures_are_told_as_in_the_test(upright: Run, tmp_path: Path) -> None:
    """What a user turns is answered as what the Run turned; resizing before or after may move a
    pixel by one."""
    pictures, expected, true = [], [], []
    dataset, answered = upright.dataset(), answers(upright)
    for example in dataset.test[:40]:
        path = Path(example.path)
        with Image.open(path) as image:
            turned = np.rot90(np.asarray(image), example.turn)
        target = tmp_path / f"{path.parent.name}-{path.stem}-{example.turn}.png"
        Image.fromarray(turned).save(target)
        pictures.append(target)
        name = path.relative_to(dataset.folder).as_posix()
        expected.append(answered[name, example.turn])
        true.append(dataset.labels[example.label])
    found = predicted(upright, pictures)
    assert np.mean([a == b for a, b in zip(found, expected, strict=True)]) >= 0.95
    assert np.mean([a == b for a, b in zip(found, true, strict=True)]) >= 0.6


def test_an_orientation_run_goes_down_the_line(upright: Run, tmp_path: Path) -> None:
    """The int8 file is calibrated and judged on turned images; 744 of them can tell 10 points."""
    flags = ["--formats", "tflite", "--max-drop", "10", "--calibration-images", "40"]
    ended = smidgen(["export", str(upright.folder), "--out", str(tmp_path), *flags])
    assert ended.status == 0, ended.stderr
    top1 = upright.test_metrics.top1_percent
    for ending, tolerance in (("float32.tflite", 0.5), ("int8.tflite", 10)):
        (path,) = tmp_path.glob(f"*-{ending}")
        manifest = Bundle.open(path).manifest
        assert manifest.labels == ("0", "90", "180", "270")
        assert manifest.verdict is not None
        assert manifest.verdict.verdict == "pass"
        assert manifest.verdict.images == upright.test_metrics.images
        assert manifest.verdict.top1_percent == pytest.approx(top1, abs=tolerance)


@pytest.fixture(scope="module")
def pair(digits: Path, tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Run:
    """Two classes by file name: VGG16 from scratch, a small head, one sigmoid unit."""
    names = {3: "three.{}.png", 8: "eight.{}.png"}
    folder = pick(digits, tmp_path_factory.mktemp("pair"), names, 150)
    shutil.copy(folder / "three.0.png", folder / "nameless.png")
    return make_run(
        folder, "--labels", "file-names", "--split", "80,20", "--image-size", "32",
        "--backbone", "vgg16", "--weights", "none", "--head", "mlp", "--output", "binary",
        "--head-epochs", "0", "--full-epochs", "6", "--full-learning-rate", "3e-4",
        "--batch-size", "16", "--augmentation", "none", "--no-horizontal-flip",
        "--label-smoothing", "0",
    )  # fmt: skip


def test_two_classes_by_file_name_from_scratch(pair: Run) -> None:
    assert pair.labels == ("eight", "three")
    assert pair.test_metrics.top1_percent >= 80  # chance is 50; 100 where this was written
    assert [row.stage for row in pair.metrics] == ["full"] * 6
    assert pair.metrics[-1].loss < 0.5 * pair.metrics[0].loss
    np.testing.assert_allclose(shares(pair), (72, 8, 20), atol=5)
    (skipped,) = pair.dataset().skipped
    assert Path(skipped.path).name == "nameless.png"
    assert "no label: there is no '.' in its name" in skipped.reason


def test_one_sigmoid_unit_answers_for_both_classes(pair: Run) -> None:
    dataset = pair.dataset()
    pictures = [Path(e.path) for e in dataset.test[:10] + dataset.test[-10:]]
    answered = answers(pair)
    ended = smidgen(["predict", str(pair.folder), *map(str, pictures), "--top", "2"])
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [line[1] for line in lines[::2]] == [answered[path.name, 0] for path in pictures]
    assert all({one[1], two[1]} == set(pair.labels) for one, two in zip(lines[::2], lines[1::2]))
    scores = np.array([float(line[2]) for line in lines]).reshape(-1, 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=2e-4)
    import keras

    network = keras.saving.load_model(pair.model_path, compile=False)
    kernel, bias = (np.asarray(weight) for weight in network.get_layer("logits").get_weights())
    assert (kernel.shape, kernel[:, 0].any(), bias[0]) == ((256, 2), False, 0)
    assert kernel[:, 1].any()


@pytest.fixture(scope="module")
def characters(digits: Path, tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Run:
    """Class folders in 70/20/10; an ensemble under one head, frozen first, then trained.

    Its backbones begin with random weights: of those of the table, only Lite0 to Lite2 have
    ImageNet weights that need no network, and one of them is installed.
    """
    names = {digit: f"{name}/{{}}.png" for digit, name in enumerate(NAMES)}
    folder = pick(digits, tmp_path_factory.mktemp("characters"), names, 80)
    return make_run(
        folder, "--split", "70,20,10", "--image-size", "64", "--weights", "none",
        "--backbone", "efficientnet-lite0", "--ensemble", "mobilenet-v3-small",
        "--head", "dropout-mlp", "--freeze-to", "all", "--feature-views", "2",
        "--head-epochs", "8", "--head-learning-rate", "3e-3",
        "--full-epochs", "3", "--full-learning-rate", "1e-3", "--batch-size", "16",
        "--augmentation", "pixel", "--no-horizontal-flip",
    )  # fmt: skip


def test_named_characters_with_an_ensemble(characters: Run) -> None:
    assert characters.labels == tuple(sorted(NAMES))
    np.testing.assert_allclose(shares(characters), (70, 20, 10), atol=5)
    head, full = characters.metrics[:8], characters.metrics[8:]
    assert {row.stage for row in head} | {row.stage for row in full} == {"head", "full"}
    assert max(row.val_top1 for row in head) >= 0.35  # random features know that much
    assert characters.test_metrics.top1_percent >= 45  # chance is 10


def test_tensorboard_has_every_step_and_epoch(characters: Run) -> None:
    steps = len(characters.steps_path.read_text().splitlines())
    assert [step for step, _ in logged(characters, "loss/step")] == list(range(1, steps + 1))
    found = logged(characters, "top1_percent/validation")
    assert len(found) == len(characters.metrics) == 11
    expected = [100 * row.val_top1 for row in characters.metrics]
    np.testing.assert_allclose([value for _, value in found], expected, rtol=1e-5)
    assert found[-1][0] == steps


def test_a_picture_is_drawn_beside_its_answer(characters: Run, tmp_path: Path) -> None:
    pictures = [Path(e.path) for e in characters.dataset().test[::9]]
    sheet = tmp_path / "answers.png"
    found = predicted(characters, pictures, "--picture", str(sheet))
    answered, folder = answers(characters), Path(characters.dataset().folder)
    assert found == [answered[path.relative_to(folder).as_posix(), 0] for path in pictures]
    with Image.open(sheet) as image:
        assert min(image.size) > 200
        assert np.asarray(image.convert("L")).std() > 10  # something is drawn


def test_every_run_says_what_made_it(upright: Run, pair: Run, characters: Run) -> None:
    for run in (upright, pair, characters):
        facts = run.provenance
        assert facts["data_sha256"] == run.dataset().sha256
        assert facts["seeds"] == {"data": 0, "schedule": 0}
        assert re.fullmatch(r"\d+\.\d+\.\d+", facts["versions"]["keras"])
        example = run.dataset().test[0]
        assert hashlib.sha256(Path(example.path).read_bytes()).hexdigest() == example.sha256
