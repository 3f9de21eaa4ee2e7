"""The loop on a tiny network: it learns, leaves a whole Run, and says what is wrong."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from smidgen.train import DataRecipe, ModelRecipe, Run, TrainRecipe
from smidgen.train.errors import DataError, NotARun, RunMismatch, TrainingDiverged
from smidgen.train.fitting.fit import fit_student
from smidgen.train.fitting.session import Session
from smidgen.train.fitting.stages import stages
from smidgen.train.fitting.steps import Batch
from smidgen.train.fitting.training_loop import predict
from smidgen.train.lock import sole_writer
from smidgen.train.loop import train
from smidgen.train.models.backbones import Normalization
from smidgen.train.progress import SilentProgress

Bench = Any
COUNTS = {"red": 24, "blue": 24, "green": 24}


def test_it_learns_and_leaves_a_whole_run(bench: Bench, whole: Run) -> None:
    run = whole
    assert Run.open(run.folder).is_finished
    assert [(row.stage, row.epoch) for row in run.metrics] == [
        ("head", 1), ("head", 2), ("full", 1), ("full", 2)
    ]  # fmt: skip
    assert run.metrics[-1].loss < run.metrics[0].loss
    result = run.test_metrics
    assert result.top1_percent > 60  # chance is 33
    assert sum(map(sum, result.confusion)) == result.images == len(bench.dataset.test)
    assert run.dataset() == bench.dataset
    assert run.labels == ("blue", "green", "red")
    assert run.normalization == Normalization((127.0,) * 3, (128.0,) * 3)
    facts = run.provenance
    assert facts["seeds"] == {"data": 0, "schedule": 0}
    assert facts["data_sha256"] == bench.dataset.sha256
    assert facts["versions"]["keras"] == keras.version()
    assert run.curves_path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    wanted = {
        "augmentations.png", "calibration.png", "classes.png", "confusion.png", "curves.png",
        "dataset.json", "metrics.jsonl", "mistakes.png", "model.keras", "predictions.csv",
        "provenance.json", "recipe.toml", "skipped.csv", "steps.jsonl", "tensorboard",
        "test_metrics.json",
    }  # fmt: skip
    assert wanted <= {path.name for path in run.folder.iterdir()}


def test_the_saved_network_is_the_best_epoch(bench: Bench, whole: Run) -> None:
    network = keras.saving.load_model(whole.model_path, compile=False)
    validation = bench.dataset.validation
    pixels = bench.pixels.take(bench.pixels.rows_of(validation)).astype(np.float32)
    logits = network.predict((pixels - 127.0) / 128.0, verbose=0)
    labels = np.array([example.label for example in validation])
    top1 = float((logits.argmax(axis=1) == labels).mean())
    assert top1 == pytest.approx(max(row.val_top1 for row in whole.metrics))


@pytest.mark.parametrize("settings", [{}, {"warm_up": 0.3, "augmentation": "standard"}])
def test_a_diverging_loss_stops(bench: Bench, settings: dict[str, Any]) -> None:
    bench.change(head_epochs=0, label_smoothing=0.0, full_learning_rate=0.125, **settings)
    student = bench.student(Normalization((0.0,) * 3, (1e-38,) * 3))
    run = Run(bench.runs / "nan")
    run.keep_recipe(bench.recipe)
    with pytest.raises(TrainingDiverged) as caught:
        fit_student(run, student, bench.material, SilentProgress(), 500)
    text = str(caught.value)
    for part in ("at step 1 of epoch 1", "stage full", "full_learning_rate (0.125)", "warm_up"):
        assert part in text
    assert not run.model_path.exists()


def test_an_exploding_loss_stops(bench: Bench) -> None:
    bench.change(head_epochs=0)
    student = bench.student()
    logits = student.network.get_layer("logits")
    logits.set_weights([1e6 * weight for weight in logits.get_weights()])
    run = Run(bench.runs / "exploding")
    run.keep_recipe(bench.recipe)
    with pytest.raises(TrainingDiverged, match=r"became [1-9][\de+.]+ at step 1 .*lower schedule"):
        fit_student(run, student, bench.material, SilentProgress(), 500)


def session_of(bench: Bench, name: str = "s") -> Session:
    return Session(
        bench.recipe, bench.student(), bench.material, bench.runs / name, SilentProgress()
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"block_01_conv", "block_01_bn", "logits"}),
        ({"freeze_to": "all"}, {"logits"}),
        ({"batch_norm": "frozen"}, {"block_01_conv", "logits"}),
        (
            {"freeze_to": "none"},
            {"stem_conv", "block_00_conv", "block_00_bn", "block_01_conv", "block_01_bn", "logits"},
        ),
    ],
)
def test_frozen_layers_do_not_move(
    bench: Bench, settings: dict[str, Any], expected: set[str]
) -> None:
    bench.change(**settings)
    session = session_of(bench)
    before = {layer.name: layer.get_weights() for layer in session.copy.layers}
    job = session.job(stages(bench.recipe.schedule)[0])
    classes = np.eye(3, dtype=np.float32)
    for _, pixels, labels in job.feed.epoch(1):
        batch = Batch(pixels, classes[labels], np.ones(len(labels), np.float32))
        job.stepper.step(batch, 0.1, is_update=True)
    moved = {
        layer.name
        for layer in session.copy.layers
        for old, new in zip(before[layer.name], layer.get_weights(), strict=True)
        if not np.array_equal(old, new)
    }
    assert moved == expected


def test_the_copy_answers_as_the_network_does(bench: Bench) -> None:
    bench.change(augmentation="standard", horizontal_flip=True)
    session = session_of(bench)
    rng = np.random.default_rng(0)
    for layer in session.copy.layers:  # statistics that matter
        layer.set_weights([rng.uniform(0.1, 1.0, w.shape) for w in layer.get_weights()])
    images = bench.material.answered("test", 4)
    answers = predict(session.stepper(), images)
    rows = bench.pixels.rows_of(bench.dataset.test)
    x = (bench.pixels.take(rows).astype(np.float32) - 127.0) / 128.0
    expected = session.finished_network().predict(x, verbose=0)
    assert answers.shape == (len(images), 3)
    np.testing.assert_allclose(answers, expected, rtol=1e-5)
    session.copy.layers[-1].set_weights([w + 0.01 for w in session.copy.layers[-1].get_weights()])
    assert not np.allclose(predict(session.stepper(), images), expected, rtol=1e-5)


def test_a_folder_belongs_to_one_recipe_and_its_images(
    bench: Bench, whole: Run, tmp_path: Path
) -> None:
    other = dataclasses.replace(bench.recipe, model=ModelRecipe(dropout=0.5))
    with pytest.raises(RunMismatch, match=r"model\.dropout: 0\.2 -> 0\.5"):
        train(other, whole.folder)
    smaller = dataclasses.replace(bench.dataset, train=bench.dataset.train[1:])
    with pytest.raises(RunMismatch, match="changed since the Run"):
        whole.keep_dataset(smaller)
    with pytest.raises(NotARun, match="is not a Run folder"):
        Run.open(tmp_path)


def test_a_finished_run_is_returned_as_it_is(bench: Bench, whole: Run) -> None:
    before = whole.model_path.read_bytes()
    whole.cache_path.mkdir()
    assert train(bench.recipe, whole.folder).test_metrics == whole.test_metrics
    assert whole.model_path.read_bytes() == before
    assert not whole.checkpoints_path.exists()
    assert not whole.cache_path.exists()


def test_a_finished_run_is_not_taken_for_one_of_changed_images(
    bench: Bench, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder("photos", COUNTS)
    shutil.copy(folder / "red/0000.png", folder / "red/twin.png")
    (folder / "red/cut.png").write_bytes((folder / "red/0001.png").read_bytes()[:500])
    run = type(bench)(folder, tmp_path / "runs").go("whole")
    recipe = run.recipe
    train(recipe, run.folder)
    make_folder("photos", {"blue": 1}, first_seed=77)  # another picture under an old name
    with pytest.raises(RunMismatch, match="changed since the Run"):
        train(recipe, run.folder)
    shutil.rmtree(folder)
    assert train(recipe, run.folder).is_finished


def test_a_run_that_another_process_trains_is_waited_for(
    bench: Bench, whole: Run, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(bench.recipe, model=ModelRecipe(weights="none"))
    run, progress, returned = Run(tmp_path / "run"), SilentProgress(), []
    with sole_writer(run.folder, print):
        second = threading.Thread(
            target=lambda: returned.append(train(recipe, run.folder, progress=progress))
        )
        second.start()
        deadline = time.monotonic() + 20
        while not progress.notes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert progress.notes == [
            f"waiting for another smidgen process that writes into {run.folder}"
        ]
        shutil.copytree(whole.folder, run.folder, dirs_exist_ok=True)  # the first one finishes
        run.recipe_path.write_text(recipe.to_toml())
    second.join()
    assert returned[0].test_metrics == whole.test_metrics
    assert (progress.counted, progress.stages) == (0, [])


def test_a_run_inside_the_images_is_refused(make_folder: Callable[..., Path]) -> None:
    folder = make_folder("photos", COUNTS)
    with pytest.raises(DataError, match="lies inside the images' folder"):
        train(TrainRecipe(DataRecipe(str(folder))), folder / "run")
    assert not (folder / "run").exists()
