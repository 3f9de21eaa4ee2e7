"""``report``: everything that there is to see of a trained network, into its Run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smidgen.train.data import Dataset
from smidgen.train.run import Run
from smidgen.train.seeing.calibration import draw_calibration
from smidgen.train.seeing.classes import draw_classes
from smidgen.train.seeing.confusion import draw_confusion
from smidgen.train.seeing.curves import Schedule, draw_curves
from smidgen.train.seeing.evaluation import Evaluation
from smidgen.train.seeing.metrics import evaluation
from smidgen.train.seeing.mistakes import Take, draw_mistakes
from smidgen.train.seeing.predictions import Answers, write_predictions
from smidgen.train.seeing.sink import MetricSink
from smidgen.train.seeing.step_log import read_steps


def report(
    run: Run, dataset: Dataset, logits: np.ndarray, take: Take, sink: MetricSink | None = None
) -> Evaluation:
    """Write the pictures and ``predictions.csv``; return the numbers of the test split.

    The caller hands the numbers to ``run.keep_test_metrics`` when all other files are there.

    Args:
        run: its ``metrics.jsonl`` must hold the epochs; ``steps.jsonl`` is used where it exists.
        dataset: its test split is what was answered.
        logits: ``(N, classes) float`` of the N test examples in their order; two columns where the
            network has one output (0 and its logit).
        take: ``take(positions)`` gives pixels of test examples, ``(len(positions), S, S, 3) uint8``
            RGB, turned as the network saw them.
        sink: gets the pictures one step behind the last, so that a log which is gone on with after
            the last step does not hold them twice.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    labels = np.array([example.label for example in dataset.test], np.int64)
    is_orientation = dataset.task == "orientation"
    result = evaluation(logits, labels, dataset.labels, is_orientation=is_orientation)
    answers = Answers.of(dataset, dataset.test, logits)
    write_predictions(answers, run.predictions_path)
    _draw(run, result, answers, take)
    if sink is not None:
        steps = read_steps(run.steps_path)
        behind = (steps[-1].step if steps else 0) + 1
        for path in _pictures(run):
            sink.picture(path.stem, path, behind)
    return result


def _draw(run: Run, result: Evaluation, answers: Answers, take: Take) -> None:
    title = (
        f"{run.name}: test top-1 {result.top1_percent:.2f} % "
        f"[{result.top1_low_percent:.1f}, {result.top1_high_percent:.1f}] "
        f"of {result.images:,} images"
    )
    plan = run.recipe.schedule
    schedule = Schedule({"head": plan.head_epochs, "full": plan.full_epochs}, plan.ema)
    draw_curves(run.metrics, run.curves_path, title, read_steps(run.steps_path), schedule)
    draw_confusion(result, run.confusion_path, title)
    draw_classes(result, run.classes_path, title)
    draw_calibration(result, run.calibration_path, title)
    draw_mistakes(answers, take, run.mistakes_path, title)


def _pictures(run: Run) -> tuple[Path, ...]:
    return (
        run.curves_path, run.confusion_path, run.classes_path, run.calibration_path,
        run.mistakes_path,
    )  # fmt: skip
