"""An interrupted or killed Run ends as one that was never interrupted."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from smidgen.train import Run
from smidgen.train.errors import NotARun, RunError
from smidgen.train.loop import Options
from smidgen.train.progress import SilentProgress
from smidgen.train.seeing.step_log import read_steps

Bench = Any


class Interrupting(SilentProgress):
    """Presses Ctrl-C after so many steps."""

    def __init__(self, after_steps: int) -> None:
        super().__init__()
        self._left = after_steps

    def advance(self, count: int, detail: str = "") -> None:
        super().advance(count, detail)
        self._left -= bool(count)
        if self._left == 0:
            raise KeyboardInterrupt


def numbers(run: Run) -> list[list[float]]:
    return [[row.loss, row.top1, row.val_loss, row.val_top1] for row in run.metrics]


def weights(run: Run) -> list[np.ndarray]:
    network = keras.saving.load_model(run.model_path, compile=False)
    arrays: list[np.ndarray] = network.get_weights()
    return arrays


def assert_equal_to_the_last_bit(left: Run, right: Run) -> None:
    assert numbers(left) == numbers(right)
    for one, other in zip(weights(left), weights(right), strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_seeds_give_equal_runs(bench: Bench, whole: Run) -> None:
    assert_equal_to_the_last_bit(bench.go("again"), whole)
    bench.change(seed=1, full_epochs=0)
    assert not np.allclose(numbers(bench.go("other")), numbers(whole)[:2], rtol=1e-2)


STEPS, EPOCH, BATCH = 24, 6, 8


@pytest.mark.parametrize(("steps_before", "every"), [(2, 500), (9, 4), (13, 500), (20, 4)])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    bench: Bench, whole: Run, steps_before: int, every: int
) -> None:
    bench.options = Options(checkpoint_every_steps=every)
    with pytest.raises(KeyboardInterrupt):
        bench.go("cut", Interrupting(after_steps=steps_before))
    assert not (bench.runs / "cut/model.keras").exists()
    killed = bench.runs / "cut/checkpoints/.state.x1.npz"
    killed.parent.mkdir(exist_ok=True)
    killed.write_bytes(b"half")
    with pytest.raises(NotARun, match="not finished"):
        Run.open(bench.runs / "cut")
    saved = [0, *range(EPOCH, STEPS, EPOCH), *range(every, STEPS, every)]
    kept = max(step for step in saved if step < steps_before)
    progress = SilentProgress()
    resumed = bench.go("cut", progress)
    assert progress.counted == BATCH * (STEPS - kept + kept % EPOCH)  # the bar begins where it was
    if kept:
        epochs, steps = divmod(kept, EPOCH)
        more = f" and {steps} steps" if steps else ""
        assert progress.notes[0] == f"resuming after epoch {epochs}{more}"
    assert_equal_to_the_last_bit(resumed, whole)
    assert [row.step for row in read_steps(resumed.steps_path)] == list(range(1, STEPS + 1))
    assert not killed.parent.exists() or not killed.exists()


def test_averages_gathered_gradients_and_features_are_resumed_too(bench: Bench) -> None:
    bench.change(ema=0.9, accumulate_steps=2, feature_views=2, augmentation="standard")
    bench.options = Options(checkpoint_every_steps=1)
    whole = bench.go("whole")
    for steps_before in (5, 15):
        with pytest.raises(KeyboardInterrupt):
            bench.go("cut", Interrupting(steps_before))
    assert_equal_to_the_last_bit(bench.go("cut"), whole)


def test_a_run_killed_before_its_last_file_is_finished_without_training(bench: Bench) -> None:
    run = bench.go("a")
    expected = run.test_metrics
    for path in (run.test_metrics_path, run.model_path, run.curves_path):
        path.unlink()
    progress = SilentProgress()
    assert bench.go("a", progress).test_metrics == expected
    assert progress.counted == 0


@pytest.mark.parametrize("forgotten", ["optimizer_", "model_"])
def test_forgetting_a_part_of_the_state_would_be_seen(
    bench: Bench, whole: Run, forgotten: str
) -> None:
    """The fault planted beside the equality above: resume without Adam's moments, or weights."""
    with pytest.raises(KeyboardInterrupt):
        bench.go("cut", Interrupting(after_steps=20))
    state = bench.runs / "cut/checkpoints/state.npz"
    with np.load(state) as archive:
        arrays = {
            name: np.zeros_like(value) if name.startswith(forgotten) else value
            for name, value in archive.items()
        }
    np.savez(state, **arrays)
    assert not np.allclose(numbers(bench.go("cut")), numbers(whole), rtol=1e-5, atol=1e-6)


def test_a_damaged_checkpoint_is_one_line(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.go("cut", Interrupting(after_steps=9))
    state = bench.runs / "cut/checkpoints/state.npz"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"cannot read .*state\.npz.*delete") as caught:
        bench.go("cut")
    assert "\n" not in str(caught.value)
