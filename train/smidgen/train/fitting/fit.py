"""``fit``: from pixels to a finished Run. Keras must be imported (see ``backend``)."""

from __future__ import annotations

import json
from functools import partial

import keras

from smidgen.runtime.files import replacing, write_text
from smidgen.train.augment.sheet import draw_augmentations
from smidgen.train.fitting import checkpoint
from smidgen.train.fitting.checkpoint import Checkpoint
from smidgen.train.fitting.material import Material
from smidgen.train.fitting.same_start import best_weights, same_start
from smidgen.train.fitting.session import Session, Student
from smidgen.train.fitting.stages import stages
from smidgen.train.fitting.teachers import teachers_of
from smidgen.train.fitting.training_loop import TrainingLoop, predict
from smidgen.train.models.facts import normalization_of
from smidgen.train.models.network import build
from smidgen.train.progress import Progress
from smidgen.train.provenance import provenance
from smidgen.train.recipe import TrainRecipe
from smidgen.train.run import EpochMetrics, Run
from smidgen.train.seeing.report import report
from smidgen.train.seeing.sink import Setting, TensorBoardSink
from smidgen.train.seeing.step_log import StepLog, StepMetrics

_SHOWN = 6
"""Images on the sheet of augmentations."""


class RunRecord:
    """Numbers of a training into its Run: ``steps.jsonl``, TensorBoard's files, and notes."""

    def __init__(self, run: Run, done_steps: int, progress: Progress) -> None:
        self._steps = StepLog(run.steps_path, done_steps)
        self.sink = TensorBoardSink(run.tensorboard_path, done_steps)
        self._progress = progress

    def step(self, row: StepMetrics) -> None:
        """See ``Record``."""
        self._steps.append(row)
        self.sink.step(row)

    def epoch(self, row: EpochMetrics, total_steps: int) -> None:
        """See ``Record``."""
        self.sink.epoch(row, total_steps)

    def note(self, text: str) -> None:
        """See ``Record``."""
        self._progress.note(text)

    def close(self) -> None:
        """Everything is on disk."""
        self._steps.close()
        self.sink.close()


def fit(run: Run, material: Material, progress: Progress, checkpoint_every_steps: int) -> None:
    """Train what is left of ``run.recipe``, then test the best network and finish the Run.

    All processes of ``material.group`` call it; only the one that leads it writes, and needs,
    what is in ``run`` beside the recipe.
    """
    recipe, dataset = run.recipe, material.dataset
    keras.utils.set_random_seed(recipe.schedule.seed)
    network = build(recipe.model, len(dataset.labels), recipe.data.image_size)
    teachers = teachers_of(recipe.distillation, dataset)
    student = Student(network, normalization_of(recipe.model), teachers)
    fit_student(run, student, material, progress, checkpoint_every_steps)


def fit_student(
    run: Run, student: Student, material: Material, progress: Progress, checkpoint_every_steps: int
) -> None:
    """As ``fit``, with a network that is there already."""
    recipe, group = run.recipe, material.group
    session = Session(recipe, student, material, run.cache_path, progress)
    saved = checkpoint.load(run.checkpoints_path)
    record = RunRecord(run, saved.state.total_steps if saved else 0, progress)
    try:
        loop = TrainingLoop(
            run.checkpoints_path, run.metrics_path, recipe.schedule, session.copy,
            session.variables, progress, record, checkpoint_every_steps, group.leads,
        )  # fmt: skip
        if saved is not None:
            loop.take_up(saved)
            progress.note(_resuming(saved))
        elif group.leads:
            _begin(run, session, material, record)
        same_start(loop, group)
        for stage in stages(recipe.schedule):
            if not loop.is_over(stage):
                loop.run(session.job(stage))
        session.copy.set_weights(best_weights(loop, group))
        _finish(run, session, material, loop, record)
    finally:
        record.close()


def _begin(run: Run, session: Session, material: Material, record: RunRecord) -> None:
    """What is there to see before the first step."""
    examples = material.dataset.train[:: max(1, len(material.dataset.train) // _SHOWN)][:_SHOWN]
    pixels = material.training.take(material.training.rows_of(examples))
    draw_augmentations(pixels, session.augmentation, run.augmentations_path)
    record.sink.text("recipe", run.recipe.to_toml())
    record.sink.settings(_settings(run.recipe))
    for path in (run.samples_path, run.augmentations_path):
        if path.is_file():
            record.sink.picture(path.stem, path, 0)


def _settings(recipe: TrainRecipe) -> dict[str, Setting]:
    """What Runs are compared by: each key of the recipe that holds one value, by table."""
    tables = recipe.to_mapping()
    return {
        f"{table}.{key}": value
        for table in ("data", "model", "schedule")
        for key, value in tables[table].items()
        if isinstance(value, (bool, int, float, str)) and key != "folder"
    }


def _resuming(saved: Checkpoint) -> str:
    state = saved.state
    where = f"resuming after epoch {len(state.rows)}"
    return f"{where} and {state.tally.steps} steps" if state.tally.steps else where


def _finish(
    run: Run, session: Session, material: Material, loop: TrainingLoop, record: RunRecord
) -> None:
    """Test the best network, all processes together, and write the Run's last files; the test
    metrics come last."""
    recipe, dataset, state = run.recipe, material.dataset, loop.state
    session.copy.trainable = True
    test = material.answered("test", recipe.schedule.batch_size)
    logits = predict(session.stepper(), test)
    if not loop.is_writer:
        return
    with replacing(run.model_path) as temporary:
        session.finished_network().save(temporary)
    take = partial(material.take, "test")
    result = report(run, dataset, logits, take, record.sink)
    facts = provenance(run, dataset, state)
    write_text(run.provenance_path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    record.close()
    run.keep_test_metrics(result)
    record.note(
        f"test top-1 {result.top1_percent:.2f} % ({result.top1_low_percent:.1f} to "
        f"{result.top1_high_percent:.1f} %, {result.images} images), best epoch "
        f"{state.best_row + 1} of {len(state.rows)}"
    )
