"""Steps, predictions, test metrics and TensorBoard's files, read back."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smidgen.runtime.errors import OutputError
from smidgen.train.data import Dataset, Example
from smidgen.train.errors import NotARun
from smidgen.train.run import EpochMetrics, Run, best_epoch
from smidgen.train.seeing.metrics import evaluation
from smidgen.train.seeing.predictions import Answers, write_predictions
from smidgen.train.seeing.sink import MetricSink, RememberingSink, TensorBoardSink
from smidgen.train.seeing.step_log import StepLog, StepMetrics, read_steps


def a_step(number: int, loss: float = 1.0) -> StepMetrics:
    return StepMetrics(number, "head", 1 + number // 10, loss / number, 1e-3, 50.5)


def an_epoch(number: int, val_top1: float = 0.5, val_loss: float = 1.0) -> EpochMetrics:
    return EpochMetrics("head", number, 1.0, 0.4, val_loss, val_top1, 1e-3, 2.5, 100.0)


def test_steps_are_read_back_as_written(tmp_path: Path) -> None:
    rows = tuple(a_step(number) for number in range(1, 6))
    with closing(StepLog(tmp_path / "run" / "steps.jsonl")) as log:
        for row in rows:
            log.append(row)
        assert read_steps(tmp_path / "run" / "steps.jsonl") == rows  # before it is closed
    assert read_steps(tmp_path / "none.jsonl") == ()


def test_going_on_drops_later_steps_and_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    with closing(StepLog(path)) as log:
        for number in range(1, 9):
            log.append(a_step(number))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])  # the eighth line is cut, as by SIGKILL
    assert [row.step for row in read_steps(path)] == [1, 2, 3, 4, 5, 6, 7]
    with closing(StepLog(path, done_steps=5)) as log:
        log.append(a_step(6, loss=7.0))
    assert [row.step for row in read_steps(path)] == [1, 2, 3, 4, 5, 6]
    assert read_steps(path)[-1].loss == pytest.approx(7 / 6)
    assert path.read_bytes().count(b"\n") == 6
    with closing(StepLog(path)) as log:
        log.append(a_step(1))
    assert [row.step for row in read_steps(path)] == [1]


@pytest.mark.parametrize("line", ["{}", "[]", "not json", '{"step": "1"}', '{"step": 1, "x": 2}'])
def test_lines_that_are_no_steps_are_skipped(tmp_path: Path, line: str) -> None:
    path = tmp_path / "steps.jsonl"
    with closing(StepLog(path)) as log:
        log.append(a_step(1))
    path.write_bytes(line.encode() + b"\n" + b"\xff\n" + path.read_bytes())
    assert read_steps(path) == (a_step(1),)


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*steps\.jsonl"):
        StepLog(tmp_path / "file" / "steps.jsonl")
    with pytest.raises(OutputError, match="cannot write"):
        TensorBoardSink(tmp_path / "file" / "tensorboard")


def dataset(folder: str) -> Dataset:
    test = (
        Example(f"{folder}/cat/a, b.jpg", 0, "aa"),
        Example(f"{folder}/M\u00e4use/1.jpg", 1, "bb"),
        Example("elsewhere/x.jpg", 1, "cc", turn=3),
    )
    return Dataset(folder, ("cat", "M\u00e4use"), (), (), test)


def test_predictions_open_in_a_spreadsheet(tmp_path: Path) -> None:
    data = dataset("/photos")
    logits = np.log([[0.75, 0.25], [0.9, 0.1], [0.2, 0.8]])
    answers = Answers.of(data, data.test, logits)
    path = tmp_path / "predictions.csv"
    write_predictions(answers, path)
    assert path.read_bytes().startswith(
        b"\xef\xbb\xbfpath,turn,label,predicted,probability,correct"
    )
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    assert rows == [
        ["cat/a, b.jpg", "0", "cat", "cat", "0.750000", "1"],
        ["M\u00e4use/1.jpg", "0", "M\u00e4use", "cat", "0.900000", "0"],
        ["elsewhere/x.jpg", "3", "M\u00e4use", "M\u00e4use", "0.800000", "1"],
    ]


def test_the_worst_mistake_is_the_surest() -> None:
    data = dataset("/photos")
    logits = np.log([[0.4, 0.6], [0.9, 0.1], [0.7, 0.3]])
    assert list(Answers.of(data, data.test, logits).wrong) == [1, 2, 0]


def test_test_metrics_are_read_back_as_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    logits = np.eye(4)[[0, 0, 2, 2]]
    names = ("0", "90", "180", "270")
    result = evaluation(logits, np.array([0, 0, 2, 1]), names, is_orientation=True)
    run.keep_test_metrics(result)
    assert run.test_metrics == result
    assert result.classes[3].recall_percent is None
    run.test_metrics_path.write_text('{"images": 3}')
    with pytest.raises(NotARun, match=r"test_metrics\.json: top1_percent is missing"):
        _ = run.test_metrics


def test_test_metrics_of_before_are_still_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    old = {"images": 2, "top1_percent": 50.0, "top1_low_percent": 9.5, "top1_high_percent": 90.5,
           "loss": 0.7, "confusion": [[1, 0], [1, 0]]}  # fmt: skip
    run.test_metrics_path.write_text(json.dumps(old))
    assert run.test_metrics.confusion == ((1, 0), (1, 0))
    assert run.test_metrics.classes == ()


def test_the_best_epoch_is_the_first_of_the_best() -> None:
    rows = [an_epoch(1, 0.5, 0.9), an_epoch(2, 0.7, 0.8), an_epoch(3, 0.7, 0.6),
            an_epoch(4, 0.7, 0.6), an_epoch(5, 0.6, 0.1)]  # fmt: skip
    assert best_epoch(rows) == 2


def accumulator(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loaded = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    loaded.Reload()
    return loaded


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 4)) for event in accumulator(folder).Scalars(tag)]


def a_picture(path: Path) -> Path:
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(path)
    return path


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    with closing(TensorBoardSink(folder)) as sink:
        sink.text("recipe", "[data]\nfolder = 'x'  # _a_")
        sink.settings({"schedule.batch_size": 32, "model.backbone": "efficientnet-lite0"})
        sink.picture("samples", a_picture(tmp_path / "samples.png"), 0)
        for number in (1, 2, 3):
            sink.step(a_step(number))
        sink.epoch(an_epoch(1), 3)
    assert scalars(folder, "loss/step") == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    assert scalars(folder, "schedule/learning_rate") == [(n, 0.001) for n in (1, 2, 3)]
    assert scalars(folder, "speed/images_per_second") == [(n, 50.5) for n in (1, 2, 3)]
    assert scalars(folder, "loss/validation") == [(3, 1.0)]
    assert scalars(folder, "top1_percent/validation") == [(3, 50.0)]
    loaded = accumulator(folder)
    image = loaded.Images("pictures/samples")[0]
    assert (image.step, image.width, image.height) == (0, 30, 20)
    text = loaded.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "    [data]\n    folder = 'x'  # _a_\n"
    assert "_hparams_/session_start_info" in loaded.summary_metadata


def test_a_log_that_is_gone_on_with_holds_no_step_twice(tmp_path: Path) -> None:
    """Steps 1..8 with a picture behind; back to step 5; then on to 7, with other numbers."""
    folder, picture = tmp_path / "tensorboard", a_picture(tmp_path / "curves.png")
    with closing(TensorBoardSink(folder)) as sink:
        sink.text("recipe", "one")
        sink.picture("samples", picture, 0)
        for number in range(1, 9):
            sink.step(a_step(number))
        sink.picture("curves", picture, 9)
    with closing(TensorBoardSink(folder, done_steps=5)) as sink:
        sink.text("recipe", "one")
        sink.picture("samples", picture, 0)
        for number in (6, 7):
            sink.step(a_step(number, loss=100.0))
        sink.picture("curves", picture, 8)
    assert [step for step, _ in scalars(folder, "loss/step")] == [1, 2, 3, 4, 5, 6, 7]
    assert scalars(folder, "loss/step")[5:] == [(6, 16.6667), (7, 14.2857)]
    loaded = accumulator(folder)
    assert [image.step for image in loaded.Images("pictures/samples")] == [0]
    assert [image.step for image in loaded.Images("pictures/curves")] == [8]
    assert len(loaded.Tensors("recipe/text_summary")) == 1
    with closing(TensorBoardSink(folder)) as sink:
        sink.step(a_step(1))
    assert [step for step, _ in scalars(folder, "loss/step")] == [1]


def test_an_epoch_is_in_the_file_when_the_process_is_killed(tmp_path: Path) -> None:
    """As after SIGKILL: the log is read although nobody closed it."""
    sink = TensorBoardSink(tmp_path)
    sink.step(a_step(1))
    sink.epoch(an_epoch(1), 1)
    assert scalars(tmp_path, "loss/step") == [(1, 1.0)]
    assert scalars(tmp_path, "loss/validation") == [(1, 1.0)]
    sink.close()
    sink.close()


def test_forgetting_where_it_went_on_would_be_seen(tmp_path: Path) -> None:
    """The fault planted beside the test above: a second writer that does not tell TensorBoard."""
    from tensorboardX import SummaryWriter

    with closing(TensorBoardSink(tmp_path)) as sink:
        for number in range(1, 5):
            sink.step(a_step(number))
    with SummaryWriter(str(tmp_path), filename_suffix=".z") as writer:
        writer.add_scalar("loss/step", 1.0, 3)
    assert [step for step, _ in scalars(tmp_path, "loss/step")] == [1, 2, 3, 4, 3]


def test_the_fake_remembers(tmp_path: Path) -> None:
    fake = RememberingSink()
    sink: MetricSink = fake
    sink.step(a_step(1))
    sink.epoch(an_epoch(1), 1)
    sink.picture("curves", tmp_path / "curves.png", 2)
    sink.text("recipe", "x")
    sink.settings({"a": 1})
    sink.close()
    assert fake.steps == [a_step(1)]
    assert fake.epochs == [(an_epoch(1), 1)]
    assert fake.pictures == [("curves", tmp_path / "curves.png", 2)]
    assert (fake.texts, fake.values, fake.is_closed) == ({"recipe": "x"}, {"a": 1}, True)
