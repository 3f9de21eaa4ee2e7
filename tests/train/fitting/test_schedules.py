"""Each setting of the schedule, by the numbers that it changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

from smidgen.train import DistillationRecipe, Run, ScheduleRecipe
from smidgen.train.errors import RunMismatch
from smidgen.train.fitting.checkpoint import Tally, TrainingState
from smidgen.train.fitting.objective import Objective, hits
from smidgen.train.fitting.optimizer import AdamW, decay_mask, flat, unflat
from smidgen.train.fitting.session import Session
from smidgen.train.fitting.stages import learning_rate, stages
from smidgen.train.fitting.steps import Batch
from smidgen.train.fitting.teachers import teachers_of
from smidgen.train.fitting.trainee import training_copy
from smidgen.train.hosts import Group
from smidgen.train.progress import SilentProgress
from smidgen.train.run import EpochMetrics
from smidgen.train.seeing.step_log import read_steps

Bench = Any


def rates(updates: int, **settings: Any) -> list[float]:
    schedule = ScheduleRecipe(head_epochs=0, full_learning_rate=1.0, **settings)
    (stage,) = stages(schedule)
    return [learning_rate(stage, schedule, update, updates) for update in range(updates)]


def test_the_learning_rate_warms_up_and_follows_a_cosine() -> None:
    found = rates(100, warm_up=0.1)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 11)
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.505)  # halfway between 1 and 0.01
    assert 0.01 < found[-1] < 0.011
    assert all(a > b for a, b in zip(found[10:], found[11:], strict=False))
    assert rates(100, warm_up=0.0, decay="none") == [1.0] * 100


def test_stages_of_no_epochs_are_left_out() -> None:
    both = stages(ScheduleRecipe(head_epochs=1, full_epochs=2))
    assert [(s.index, s.name, s.epochs, s.is_partial) for s in both] == [
        (0, "head", 1, True), (1, "full", 2, False)
    ]  # fmt: skip
    (only,) = stages(ScheduleRecipe(head_epochs=0))
    assert (only.index, only.name, only.is_partial) == (0, "full", False)


def test_adamw_is_that_of_keras() -> None:
    """The same gradients give the same weights as Keras' optimizer, decay and all."""
    import keras

    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(rng.normal(size=(3, 4)).astype(np.float32), name="kernel"),
        keras.Variable(rng.normal(size=4).astype(np.float32), name="bias"),
    ]
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    reference.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    ours = AdamW(weight_decay=0.1, ema=0.0, accumulate=1)
    parameters = np.asarray(flat(variables))
    state, decayed = ours.start(parameters), decay_mask(variables)
    for _ in range(5):
        gradients = [rng.normal(size=v.shape).astype(np.float32) for v in variables]
        reference.apply(gradients, variables)
        parameters, state = ours.update(parameters, flat(gradients), state, 0.01, decayed)
    for mine, theirs in zip(unflat(parameters, variables), variables, strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=2e-5)
    undecayed, _ = ours.update(parameters, flat(gradients), state, 0.01, 0 * decayed)
    decayed_once, _ = ours.update(parameters, flat(gradients), state, 0.01, decayed)
    assert not np.allclose(undecayed, decayed_once, rtol=2e-5)  # a fault would be seen


def test_gathered_gradients_are_one_large_batch() -> None:
    ours = AdamW(weight_decay=0.0, ema=0.0, accumulate=2)
    one = AdamW(weight_decay=0.0, ema=0.0, accumulate=1)
    start = np.ones(3, np.float32)
    first, second = np.array([1, 2, 3], np.float32), np.array([3, 0, -5], np.float32)
    state = ours.gather(first, ours.start(start))
    found, state = ours.update(start, second, state, 0.1, np.zeros(3))
    expected, _ = one.update(start, (first + second) / 2, one.start(start), 0.1, np.zeros(3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(state.gathered, np.zeros(3))


def test_the_average_of_weights_lags_behind() -> None:
    ours = AdamW(weight_decay=0.0, ema=0.9, accumulate=1)
    parameters = np.zeros(1, np.float32)
    state, seen = ours.start(parameters), []
    expected = 0.0
    for update in range(30):
        gradients = np.full(1, -1.0, np.float32)
        parameters, state = ours.update(parameters, gradients, state, 0.1, np.zeros(1))
        kept = min(0.9, (2 + update) / (11 + update))
        expected = kept * expected + (1 - kept) * float(parameters[0])
        seen.append(float(state.average[0]))
    assert seen[-1] == pytest.approx(expected, rel=1e-5)
    assert 0 < seen[-1] < float(parameters[0])


def test_the_loss_of_labels_weights_and_teachers() -> None:
    logits = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], np.float32)
    targets = np.eye(3, dtype=np.float32)[[0, 2]]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    plain = -log_p[[0, 1], [0, 2]]
    ones = np.ones(2, np.float32)
    assert float(Objective().loss(logits, targets, ones)) == pytest.approx(plain.mean(), rel=1e-5)
    weighted = float(Objective().loss(logits, targets, np.array([0.5, 1.5], np.float32)))
    assert weighted == pytest.approx((0.5 * plain[0] + 1.5 * plain[1]) / 2, rel=1e-5)
    smooth = float(Objective(label_smoothing=0.3).loss(logits, targets, ones))
    assert smooth == pytest.approx((0.7 * plain - 0.1 * log_p.sum(axis=1)).mean(), rel=1e-5)
    soft = np.exp(log_p / 1.0)
    taught = Objective(temperature=2.0, teacher_share=1.0)
    half = logits / 2
    log_half = half - np.log(np.exp(half).sum(axis=1, keepdims=True))
    expected = 4 * -(soft * log_half).sum(axis=1).mean()
    assert float(taught.loss(logits, targets, ones, soft)) == pytest.approx(expected, rel=1e-5)
    assert float(hits(logits, targets)) == 1.0


def test_the_loss_of_hints_is_the_share_of_variance_that_is_missed() -> None:
    random = np.random.default_rng(4)
    taught = [random.normal(5, 2, (3, 4, 4, 2)), random.normal(0, 9, (3, 7))]
    taught = [values.astype(np.float32) for values in taught]
    objective = Objective(hint_weight=2.0)
    assert float(objective.hint_loss(taught, taught)) == 0.0
    flat = [values - values.mean(axis=tuple(range(values.ndim - 1))) for values in taught]
    means = [values - centred for values, centred in zip(taught, flat)]
    assert float(objective.hint_loss(means, taught)) == pytest.approx(2.0, rel=1e-4)
    one = [means[0], taught[1]]
    assert float(objective.hint_loss(one, taught)) == pytest.approx(1.0, rel=1e-4)


def row(stage: str, val_top1: float, val_loss: float = 1.0) -> EpochMetrics:
    return EpochMetrics(stage, 1, 1.0, 0.5, val_loss, val_top1, 0.1, 1.0, 1.0)


def test_the_best_epoch_and_the_wait_for_a_better_one() -> None:
    state = TrainingState()
    for entry in (row("head", 0.5), row("full", 0.4), row("full", 0.6), row("full", 0.6, 2.0)):
        state = state.after(entry)
    assert (state.best_row, state.epochs_since_best("full"), state.tally) == (2, 1, Tally())
    assert state.epochs_since_best("head") == 0


def test_early_stopping_ends_a_stage(bench: Bench) -> None:
    bench.change(head_epochs=0, full_epochs=30, early_stopping=2, full_learning_rate=0.05)
    progress = SilentProgress()
    run = bench.go("early", progress)
    count = len(run.metrics)
    assert count < 30
    assert any("no better validation for 2 epochs" in note for note in progress.notes)
    scores = [(-r.val_top1, r.val_loss) for r in run.metrics]
    assert scores.index(min(scores)) == count - 3


def test_features_are_computed_once_and_learn_the_same(bench: Bench) -> None:
    """Kept features are the frozen layers' outputs: the losses are those of the plain stage."""
    bench.change(full_epochs=0, head_epochs=3)
    plain = bench.go("plain")
    bench.change(feature_views=1)
    progress = SilentProgress()
    kept = bench.go("kept", progress)
    assert progress.stages.count("features") == 2  # training and validation, once each
    losses = [[r.loss for r in run.metrics] for run in (plain, kept)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=5e-3)
    bench.change(feature_views=3, augmentation="standard")
    varied = bench.go("varied")
    assert not np.allclose(losses[0], [r.loss for r in varied.metrics], rtol=5e-3)
    assert varied.test_metrics.top1_percent > 60


def test_no_more_views_are_computed_than_epochs_look_at(bench: Bench) -> None:
    bench.change(full_epochs=0, head_epochs=2, feature_views=9)
    session = Session(
        bench.recipe, bench.student(), bench.material, bench.runs / "s", SilentProgress()
    )
    session.job(stages(bench.recipe.schedule)[0])
    kept = np.load(bench.runs / "s" / "features-train.npy", mmap_mode="r")
    assert len(kept) == 2 * len(bench.dataset.train)


@pytest.mark.parametrize(
    ("obstacle", "why"),
    [
        ("teachers", "teachers look at pixels"),
        ("strong", "MixUp and CutMix mix pixels"),
        ("processes", "that is for one process"),
        ("shortcut", "something passes by block_00_conv"),
    ],
)
def test_features_are_not_kept_where_a_step_needs_more(
    obstacle: str, why: str, bench: Bench, whole: Run
) -> None:
    """The stage is then trained as without ``feature_views``, and says so."""
    bench.change(feature_views=4, augmentation="strong" if obstacle == "strong" else "none")
    student, material = bench.student(), bench.material
    if obstacle == "teachers":
        teachers = teachers_of(DistillationRecipe((str(whole.folder),)), bench.dataset)
        student = dataclasses.replace(student, teachers=teachers)
    if obstacle == "processes":
        material = dataclasses.replace(material, group=Group(0, 2))
    if obstacle == "shortcut":
        student = dataclasses.replace(student, network=network_with_a_shortcut(3))
    progress = SilentProgress()
    session = Session(bench.recipe, student, material, bench.runs / "s", progress)
    session.job(stages(bench.recipe.schedule)[0])
    assert any(note.startswith(f"features are not kept: {why};") for note in progress.notes)
    assert "features" not in progress.stages


def network_with_a_shortcut(classes: int) -> Any:
    """What comes out of the stem passes by ``block_00``."""
    image = keras.Input((64, 64, 3), name="image")
    stem = keras.layers.Conv2D(4, 3, 4, padding="same", name="stem_conv")(image)
    x = keras.layers.Conv2D(4, 3, padding="same", name="block_00_conv")(stem)
    x = keras.layers.Add(name="block_01_add")([x, stem])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x))


def test_accumulated_steps_update_less_often(bench: Bench) -> None:
    bench.change(head_epochs=0, full_epochs=2, accumulate_steps=4)
    run = bench.go("gathered")
    rates_seen = [step.learning_rate for step in read_steps(run.steps_path)]
    assert len(rates_seen) == 12  # steps
    assert len(set(rates_seen)) == 3  # updates


def test_averaged_weights_are_what_is_kept(bench: Bench) -> None:
    bench.change(head_epochs=0, full_epochs=3, full_learning_rate=0.03)
    plain = bench.go("plain")
    bench.change(ema=0.95)
    averaged = bench.go("averaged")
    # Learning is the same; what is validated is not.
    assert plain.metrics[0].loss == averaged.metrics[0].loss
    assert plain.metrics[0].val_loss != averaged.metrics[0].val_loss
    assert averaged.test_metrics.top1_percent > 60


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_rare_classes_are_heard(bench: Bench, balance: str) -> None:
    examples = bench.dataset.train
    rare = [e for e in examples if e.label == 0][:3]
    kept = (*rare, *(e for e in examples if e.label))
    bench.dataset = dataclasses.replace(bench.dataset, train=kept)
    bench.material = dataclasses.replace(bench.material, dataset=bench.dataset)
    bench.change(balance=balance)
    session = Session(
        bench.recipe, bench.student(), bench.material, bench.runs / "s", SilentProgress()
    )
    job = session.job(stages(bench.recipe.schedule)[0])
    labels = np.concatenate([labels for _, _, labels in job.feed.epoch(1)])
    shares = np.bincount(labels, job.class_weights[labels], minlength=3) / len(labels)
    assert shares[0] == pytest.approx(1 / 3, abs=0.12)
    bench.change(balance="none")
    plain = Session(
        bench.recipe, bench.student(), bench.material, bench.runs / "p", SilentProgress()
    ).job(stages(bench.recipe.schedule)[0])
    labels = np.concatenate([labels for _, _, labels in plain.feed.epoch(1)])
    assert (labels == 0).mean() < 0.15


def test_bfloat16_learns_and_is_saved_in_float32(bench: Bench) -> None:
    bench.change(precision="bfloat16")
    session = Session(
        bench.recipe, bench.student(), bench.material, bench.runs / "s", SilentProgress()
    )
    dtypes = {layer.name: layer.compute_dtype for layer in session.copy.layers if layer.weights}
    assert dtypes.pop("logits") == "float32"
    short = {name for name, dtype in dtypes.items() if dtype == "bfloat16"}
    assert short and short == {name for name in dtypes if "conv" in name}
    assert {str(w.dtype) for w in session.copy.weights} == {"float32"}
    run = bench.go("half")
    assert run.test_metrics.top1_percent > 60
    from smidgen.train.models.weights import load_network

    saved = load_network(run.model_path)
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}


def test_on_a_cpu_depthwise_convolutions_stay_exact() -> None:
    """Their gradients in bfloat16 are many times slower; the others answer nearly the same."""
    import keras

    if keras.distribution.list_devices("gpu"):
        pytest.skip("TensorFlow has a GPU here")
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, name="conv")(image)
    x = keras.layers.ReLU(6.0, name="relu6")(keras.layers.DepthwiseConv2D(3, name="depthwise")(x))
    network = keras.Model(image, x)
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    exact = np.asarray(network(pixels))
    short = training_copy(network, "bfloat16")
    assert {layer.name: layer.compute_dtype for layer in short.layers[1:]} == {
        "conv": "bfloat16",
        "depthwise": "float32",
        "relu6": "float32",
    }
    difference = np.abs(np.asarray(short(pixels)) - exact).max() / exact.max()
    assert 0 < difference < 0.02
    np.testing.assert_array_equal(np.asarray(training_copy(network, "float32")(pixels)), exact)


def test_a_student_learns_from_a_teacher(bench: Bench, whole: Run) -> None:
    """With the teacher alone (their share is 1), wrong labels do no harm."""
    wrong = tuple(dataclasses.replace(e, label=(e.label + 1) % 3) for e in bench.dataset.train)
    bench.dataset = dataclasses.replace(bench.dataset, train=wrong)
    bench.material = dataclasses.replace(bench.material, dataset=bench.dataset)
    misled = bench.go("misled").test_metrics.top1_percent
    taught = DistillationRecipe((str(whole.folder),), temperature=2.0, teacher_share=1.0)
    bench.recipe = dataclasses.replace(bench.recipe, distillation=taught)
    student = bench.go("taught").test_metrics.top1_percent
    assert misled < 40
    assert student > 60


def test_a_teacher_that_saw_the_held_out_images_is_refused(bench: Bench, whole: Run) -> None:
    swapped = dataclasses.replace(bench.dataset, train=bench.dataset.test, test=bench.dataset.train)
    bench.recipe = dataclasses.replace(
        bench.recipe, distillation=DistillationRecipe((str(whole.folder),))
    )
    bench.dataset = swapped
    with pytest.raises(RunMismatch, match="held out here") as caught:
        bench.student()
    assert "\n" not in str(caught.value)


def test_a_step_of_weight_zero_changes_nothing(bench: Bench) -> None:
    """Weights reach the gradients: images that count nothing teach nothing (but statistics)."""
    bench.change(weight_decay=0.0, head_epochs=0)
    session = Session(
        bench.recipe, bench.student(), bench.material, bench.runs / "s", SilentProgress()
    )
    job = session.job(stages(bench.recipe.schedule)[0])
    before = job.stepper.trained()
    _, pixels, labels = next(iter(job.feed.epoch(1)))
    targets = np.eye(3, dtype=np.float32)[labels]
    job.stepper.step(Batch(pixels, targets, np.zeros(len(labels), np.float32)), 0.1, True)
    np.testing.assert_array_equal(job.stepper.trained(), before)
    job.stepper.step(Batch(pixels, targets, np.ones(len(labels), np.float32)), 0.1, True)
    assert np.abs(job.stepper.trained() - before).max() > 0.01
