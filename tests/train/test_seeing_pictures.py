"""Every picture is drawn, for few and many classes, in any script, without a warning."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smidgen.runtime.errors import OutputError
from smidgen.train.data import Dataset, Example
from smidgen.train.recipe import DataRecipe, ScheduleRecipe, TrainRecipe
from smidgen.train.run import EpochMetrics, Run
from smidgen.train.seeing.bars import Answer, draw_answers
from smidgen.train.seeing.calibration import draw_calibration
from smidgen.train.seeing.canvas import class_names, drawable, luminance
from smidgen.train.seeing.classes import draw_classes
from smidgen.train.seeing.confusion import draw_confusion, orientation_line
from smidgen.train.seeing.curves import Schedule, draw_curves
from smidgen.train.seeing.evaluation import Evaluation
from smidgen.train.seeing.metrics import evaluation
from smidgen.train.seeing.mistakes import draw_mistakes
from smidgen.train.seeing.predictions import Answers
from smidgen.train.seeing.report import report
from smidgen.train.seeing.sink import RememberingSink
from smidgen.train.seeing.step_log import StepLog, StepMetrics

UNASSIGNED = "\U0003fffe"  # a code point that no font will ever have
NAMES = ("cat", "$x_1^2$", "\u732b\u306e\u540d\u524d", "\u06af\u0631\u0628\u0647", "two\nlines",
         "a very long class name that differs at its end: 1",
         "a very long class name that differs at its end: 2", UNASSIGNED, "\udcff.bin")  # fmt: skip


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    """Matplotlib warns of each character that a font lacks, at every drawing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def names_of(classes: int) -> tuple[str, ...]:
    return tuple(f"{NAMES[i % 9]}{i if i >= 9 else ''}" for i in range(classes))


def a_result(classes: int, images: int = 300) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += 3
    is_orientation = classes == 4
    names = ("0", "90", "180", "270") if is_orientation else names_of(classes)
    return evaluation(logits, labels, names, is_orientation=is_orientation), logits, labels


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def take(positions: np.ndarray) -> np.ndarray:
    """Pictures of one colour, which tells their position."""
    return np.stack([np.full((16, 16, 3), position % 256, np.uint8) for position in positions])


def answers_of(logits: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> Answers:
    examples = [Example(f"/photos/{i}.jpg", int(label), "aa") for i, label in enumerate(labels)]
    dataset = Dataset("/photos", names, (), (), tuple(examples))
    return Answers.of(dataset, examples, logits)


@pytest.mark.parametrize("classes", [2, 4, 26, 140])
def test_every_picture_of_an_evaluation_is_drawn(classes: int, tmp_path: Path) -> None:
    result, logits, labels = a_result(classes)
    draw_confusion(result, tmp_path / "confusion.png", "title")
    draw_classes(result, tmp_path / "classes.png", "title")
    draw_calibration(result, tmp_path / "calibration.png", "title")
    draw_mistakes(answers_of(logits, labels, result.labels), take, tmp_path / "mistakes.png", "t")
    for path in tmp_path.iterdir():
        pixels = pixels_of(path)
        assert min(pixels.shape[:2]) > 150
        assert pixels.std() > 15, f"{path.name} is blank"
    assert len(list(tmp_path.iterdir())) == 4


def test_rows_of_the_confusion_are_the_truth(tmp_path: Path) -> None:
    """Everything answered ``a``: the left column is dark from top to bottom, and nothing else."""

    def dark_box(answers: list[int]) -> tuple[int, int]:
        result = evaluation(np.eye(2)[answers], np.array([0, 0, 1, 1]), ("a", "b"))
        draw_confusion(result, tmp_path / "c.png", "t")
        pixels = pixels_of(tmp_path / "c.png")
        blue = (pixels == (8, 48, 107)).all(axis=2)  # 100 %; the scale at the right is cut off
        rows, columns = np.nonzero(blue[:, : int(0.86 * blue.shape[1])])
        return int(np.ptp(rows)), int(np.ptp(columns))

    height, width = dark_box([0, 0, 0, 0])
    assert height == pytest.approx(2 * width, abs=4)
    assert dark_box([0, 0, 1, 1])[1] > 1.8 * width


def test_orientation_names_the_half_turns() -> None:
    result, _, _ = a_result(4)
    counts = np.array(result.confusion)
    line = orientation_line(result)
    assert line.startswith(f"0\u2194180: {counts[0, 2] + counts[2, 0]} (")
    assert f"90\u2194270: {counts[1, 3] + counts[3, 1]} (" in line
    assert orientation_line(a_result(2)[0]) == ""


def test_the_worst_mistakes_are_on_the_sheet_turned_as_they_came(tmp_path: Path) -> None:
    """One wrong answer: its pixels are there as ``take`` gave them, and only those were asked."""
    asked: list[int] = []
    corner = np.zeros((16, 16, 3), np.uint8)
    corner[:8, :8] = (255, 0, 255)

    def take_one(positions: np.ndarray) -> np.ndarray:
        asked.extend(positions.tolist())
        return corner[np.newaxis]

    labels = np.array([0, 1, 1])
    logits = np.array([[5.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    path = tmp_path / "m.png"
    draw_mistakes(answers_of(logits, labels, ("a", "b")), take_one, path, "t")
    assert asked == [1]
    pixels = pixels_of(path)
    rows, columns = np.nonzero((pixels == (255, 0, 255)).all(axis=2))
    black_rows, _ = np.nonzero((pixels[:, columns.min() : columns.max()] == 0).all(axis=2))
    assert rows.max() < black_rows.max()
    assert abs((rows.max() - rows.min()) - (columns.max() - columns.min())) <= 2


def test_no_mistake_is_said(tmp_path: Path) -> None:
    labels = np.array([0, 1])
    path = tmp_path / "m.png"

    def never(positions: np.ndarray) -> np.ndarray:
        raise AssertionError(positions)

    draw_mistakes(answers_of(np.eye(2), labels, ("a", "b")), never, path, "title")
    assert (pixels_of(path) == (26, 127, 55)).all(axis=2).sum() > 50  # green letters


def epochs(stages: dict[str, int]) -> list[EpochMetrics]:
    return [
        EpochMetrics(stage, epoch, 1.0 / epoch, 0.8, 0.9 / epoch, 0.9, 1e-3, 1.0, 50.0)
        for stage, count in stages.items()
        for epoch in range(1, count + 1)
    ]


def steps_of(rows: list[EpochMetrics], count: int) -> list[StepMetrics]:
    return [
        StepMetrics(1 + index * count + i, row.stage, row.epoch, row.loss, 1e-3 / (1 + i), 50.0)
        for index, row in enumerate(rows)
        for i in range(count)
    ]


def reddish(path: Path) -> int:
    pixels = pixels_of(path).astype(int)
    return int((pixels[..., 0] - pixels[..., 1:].max(axis=2) > 60).sum())


@pytest.mark.parametrize("stages", [{"head": 1}, {"head": 2, "full": 3}, {"a": 1, "b": 2, "c": 4}])
def test_curves_of_any_number_of_stages(stages: dict[str, int], tmp_path: Path) -> None:
    rows = epochs(stages)
    draw_curves(rows, tmp_path / "plain.png", "title")
    plan = Schedule({name: count + 5 for name, count in stages.items()}, ema=0.999)
    draw_curves(rows, tmp_path / "full.png", "title", steps_of(rows, 400), plan)
    assert reddish(tmp_path / "full.png") > 100, "no mark of the early stop"
    assert reddish(tmp_path / "plain.png") == 0


def test_a_learning_rate_of_zero_can_be_drawn(tmp_path: Path) -> None:
    rows = [EpochMetrics("head", 1, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 5.0)]
    draw_curves(rows, tmp_path / "c.png", "title", [StepMetrics(1, "head", 1, 0.0, 0.0, 5.0)])
    assert pixels_of(tmp_path / "c.png").size


def test_a_picture_beside_its_bars(tmp_path: Path) -> None:
    magenta = np.full((40, 60, 3), (255, 0, 255), np.uint8)
    answer = Answer("a.jpg", magenta, ("cat", "dog"), (0, 1), (0.75, 0.25))
    draw_answers([answer], tmp_path / "one.png")
    pixels = pixels_of(tmp_path / "one.png")
    assert (pixels == (255, 0, 255)).all(axis=2).sum() > 5000
    blue = np.nonzero((pixels == (31, 111, 235)).all(axis=2))[1]
    grey = np.nonzero((pixels == (138, 143, 152)).all(axis=2))[1]
    assert np.ptp(blue) / np.ptp(grey) == pytest.approx(3.0, rel=0.1)
    draw_answers([answer] * 13, tmp_path / "many.png")
    assert pixels_of(tmp_path / "many.png").shape[0] == 5 * pixels.shape[0]


def test_names_are_drawable_short_and_different() -> None:
    shown = class_names(NAMES, 24)
    assert shown[0] == "cat"
    assert shown[1] == "$x_1^2$"
    assert shown[4] == "two lines"
    assert shown[5] == "a very long \u2026 its end: 1"
    assert shown[5] != shown[6]
    assert shown[7] == "#7"
    assert shown[8] == "?.bin"
    assert all(0 < len(name) <= 24 for name in shown)
    assert class_names((UNASSIGNED, UNASSIGNED), 9) == ("#0", "#1")
    assert class_names((UNASSIGNED, "cat"), 9, (17, 3)) == ("#17", "cat")
    assert class_names(("x" * 30 + "a" + "y" * 30, "x" * 30 + "b" + "y" * 30), 12) == (
        "xxxxxx\u2026yy #0", "xxxxxx\u2026yy #1",
    )  # fmt: skip
    assert drawable("0123456789", 6) == "012\u202689"
    assert drawable("a\u200bb" + 3 * UNASSIGNED + "c") == "ab?c"


def test_luminance() -> None:
    assert luminance(np.array([1.0, 1.0, 1.0, 0.5])) == pytest.approx(1.0)
    assert luminance(np.array([[0.0, 1.0, 0.0]])) == pytest.approx([0.7152])


def test_a_picture_that_cannot_be_written_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*c\.png"):
        draw_confusion(a_result(2)[0], tmp_path / "file" / "c.png", "t")
    assert dict(mpl.rcParams) == before


def test_the_report_writes_everything_but_the_last_file(tmp_path: Path) -> None:
    run, sink = Run(tmp_path / "run"), RememberingSink()
    schedule = ScheduleRecipe(head_epochs=2, full_epochs=9, ema=0.9, horizontal_flip=False,
                              augmentation="none")  # fmt: skip
    recipe = TrainRecipe(
        DataRecipe("/photos", labels="orientation", image_size=32), schedule=schedule
    )
    run.keep_recipe(recipe)
    rows = epochs({"head": 2, "full": 3})
    run.metrics_path.write_text(
        "".join(
            f'{{"stage": "{r.stage}", "epoch": {r.epoch}, "loss": 1.0, "top1": 0.5, '
            f'"val_loss": 1.0, "val_top1": 0.5, "learning_rate": 0.1, "seconds": 1.0, '
            f'"images_per_second": 9.0}}\n'
            for r in rows
        )
    )
    with closing(StepLog(run.steps_path)) as log:
        for step in steps_of(rows, 4):
            log.append(step)
    test = tuple(Example(f"/photos/{i}.jpg", turn, "aa", turn) for i in (1, 2) for turn in range(4))
    turns = ("0", "90", "180", "270")
    dataset = Dataset("/photos", turns, (), (), test, task="orientation")
    logits = 9.0 * np.eye(4)[[0, 1, 2, 3, 2, 1, 2, 0]]
    result = report(run, dataset, logits, take, sink)
    assert result.top1_percent == 75.0
    assert result.orientation is not None
    assert (result.orientation.half_turn_0_180, result.orientation.quarter_turn) == (1, 1)
    pictures = ("curves", "confusion", "classes", "calibration", "mistakes")
    assert [(name, step) for name, _, step in sink.pictures] == [(name, 21) for name in pictures]
    assert all(path == run.folder / f"{name}.png" for name, path, _ in sink.pictures)
    assert all(pixels_of(path).size for _, path, _ in sink.pictures)
    lines = run.predictions_path.read_text("utf-8-sig").splitlines()
    assert lines[4] == "1.jpg,3,270,270,0.999630,1"
    assert not run.test_metrics_path.exists()


def test_numbers_and_logs_are_light_to_import() -> None:
    heavy = ("matplotlib", "keras", "tensorflow", "tensorboardX", "PIL")
    modules = "metrics, evaluation, step_log, sink, predictions"
    program = (
        f"import sys; from smidgen.train.seeing import {modules}; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.stdout.strip(), shown.stderr) == ("[]", "")


def test_drawing_leaves_pyplot_alone() -> None:
    program = (
        "import sys; from smidgen.train.seeing import report, bars; "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.stdout.strip(), shown.stderr) == ("False", "")
