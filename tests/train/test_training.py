"""The loop on a tiny network: it learns, resumes, repeats itself, and leaves a whole Run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.train import DataRecipe, ModelRecipe, Run, ScheduleRecipe, TrainRecipe
from smidgen.train.backend import select_backend
from smidgen.train.errors import DataError, NotARun, RunError, RunMismatch, TrainingDiverged
from smidgen.train.progress import SilentProgress

select_backend("tensorflow")

import keras  # noqa: E402

from smidgen.train.data import divide  # noqa: E402
from smidgen.train.fitting import Images, TrainingLoop, images_of, predict  # noqa: E402
from smidgen.train.graph import Stage, compile_stage, training_graph  # noqa: E402
from smidgen.train.lock import sole_writer  # noqa: E402
from smidgen.train.loop import train  # noqa: E402
from smidgen.train.models.backbones import Normalization  # noqa: E402
from smidgen.train.pixels import decode_all  # noqa: E402
from smidgen.train.data.scan import take_inventory  # noqa: E402

SCHEDULE = ScheduleRecipe(
    head_epochs=2, full_epochs=2, head_learning_rate=0.02, full_learning_rate=0.01,
    unfrozen_blocks=1, batch_size=8, augmentation="none",
)  # fmt: skip
STANDARD = dataclasses.replace(SCHEDULE, augmentation="standard")
REPO = Path(__file__).resolve().parents[2]
COUNTS = {"red": 24, "blue": 24, "green": 24}


class Interrupting(SilentProgress):
    """Presses Ctrl-C after so many calls of ``advance``."""

    def __init__(self, after_calls: int) -> None:
        super().__init__()
        self._left = after_calls

    def advance(self, count: int, detail: str = "") -> None:
        super().advance(count, detail)
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def tiny_network(classes: int) -> Any:
    """Two blocks with the layer names, BatchNorm and dropout of the real ones."""
    image = keras.Input((64, 64, 3), name="image")
    x = keras.layers.Conv2D(4, 3, 4, name="stem_conv")(image)
    for index in range(2):
        name = f"block_{index:02d}"
        x = keras.layers.Conv2D(6, 3, 2, use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn", momentum=0.8)(x)
        x = keras.layers.ReLU(6.0, name=f"{name}_relu6")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x))


class Bench:
    """A folder of pictures, decoded, and as many Runs on it as wanted."""

    def __init__(self, folder: Path, runs: Path, schedule: ScheduleRecipe) -> None:
        self.schedule = schedule
        self.runs = runs
        self.recipe = TrainRecipe(DataRecipe(str(folder), image_size=64), schedule=schedule)
        data = self.recipe.data
        inventory = take_inventory(folder, data)
        examples = [item.example for item in inventory.found]
        self.pixels = decode_all(examples, data.preprocessing(), runs / "c", SilentProgress())
        self.dataset = divide(inventory.without(self.pixels.unreadable), data.shares)

    def images(self, name: Any) -> Images:
        return images_of(self.dataset, self.pixels, name)

    def change(self, **settings: Any) -> None:
        """Train the next Runs with another schedule."""
        self.schedule = dataclasses.replace(self.schedule, **settings)
        self.recipe = dataclasses.replace(self.recipe, schedule=self.schedule)

    def go(self, name: str, progress: SilentProgress | None = None) -> Run:
        """Train into ``name`` as ``fit`` does, but with the tiny network."""
        run = Run(self.runs / name)
        run.keep_recipe(self.recipe)
        run.keep_dataset(self.dataset)
        keras.utils.set_random_seed(self.schedule.seed)
        network = tiny_network(len(self.dataset.labels))
        graph = training_graph(network, Normalization(127.0, 128.0), self.schedule)
        loop = TrainingLoop(run, self.schedule, network, graph, progress or SilentProgress())
        loop.go(self.images("train"), self.images("validation"))
        loop.finish(self.dataset, self.images("test"))
        return run


@pytest.fixture(scope="module")
def shared(
    make_folder_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Run]:
    """A folder of pictures, and one finished Run on it that several tests look at."""
    place = tmp_path_factory.mktemp("shared")
    folder = make_folder_in(place / "photos", COUNTS)
    return folder, Bench(folder, place / "runs", SCHEDULE).go("whole")


@pytest.fixture
def bench(shared: tuple[Path, Run], tmp_path: Path) -> Bench:
    return Bench(shared[0], tmp_path / "runs", SCHEDULE)


@pytest.fixture
def whole(shared: tuple[Path, Run]) -> Run:
    """A Run of ``bench`` that was never interrupted."""
    return shared[1]


def numbers(run: Run) -> list[list[float]]:
    return [[row.loss, row.top1, row.val_loss, row.val_top1] for row in run.metrics]


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
    assert run.normalization == Normalization(127.0, 128.0)
    facts = run.provenance
    assert facts["seeds"] == {"data": 0, "schedule": 0}
    assert facts["data_sha256"] == bench.dataset.sha256
    assert facts["versions"]["keras"] == keras.version()
    assert run.curves_path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_saved_network_is_the_best_epoch(bench: Bench, whole: Run) -> None:
    network = keras.saving.load_model(whole.model_path, compile=False)
    validation = bench.images("validation")
    pixels = validation.take(np.arange(len(validation))).astype(np.float32)
    logits = network.predict((pixels - 127.0) / 128.0, verbose=0)
    top1 = float((logits.argmax(axis=1) == validation.labels).mean())
    assert top1 == pytest.approx(max(row.val_top1 for row in whole.metrics))


def test_equal_seeds_give_equal_runs(bench: Bench, whole: Run) -> None:
    np.testing.assert_allclose(numbers(bench.go("again")), numbers(whole), rtol=1e-6)
    bench.change(seed=1, full_epochs=0)
    assert not np.allclose(numbers(bench.go("other")), numbers(whole)[:2], rtol=1e-2)


@pytest.mark.parametrize("epochs_before", [2, 3])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    bench: Bench, whole: Run, epochs_before: int
) -> None:
    steps = len(bench.dataset.train) // SCHEDULE.batch_size
    with pytest.raises(KeyboardInterrupt):
        bench.go("cut", Interrupting(after_calls=epochs_before * steps + 2))
    assert not (bench.runs / "cut/model.keras").exists()
    killed = bench.runs / "cut/checkpoints/.state.x1.npz"
    killed.write_bytes(b"half")
    with pytest.raises(NotARun, match="not finished; train again into the same folder"):
        Run.open(bench.runs / "cut")
    progress = SilentProgress()
    resumed = bench.go("cut", progress)
    assert progress.notes[0] == f"resuming after epoch {epochs_before} of 4"
    assert progress.counted == (4 - epochs_before) * steps * SCHEDULE.batch_size
    assert not killed.exists()
    assert len(list(killed.parent.iterdir())) == 2  # the state, and the best weights
    assert [(r.stage, r.epoch) for r in resumed.metrics] == [
        (r.stage, r.epoch) for r in whole.metrics
    ]
    np.testing.assert_allclose(numbers(resumed), numbers(whole), rtol=1e-5, atol=1e-6)
    for left, right in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_a_run_killed_before_its_last_file_is_finished_without_training(bench: Bench) -> None:
    run = bench.go("a")
    expected = run.test_metrics
    for path in (run.test_metrics_path, run.model_path, run.curves_path):
        path.unlink()
    progress = SilentProgress()
    assert bench.go("a", progress).test_metrics == expected
    assert progress.counted == 0


def test_forgetting_the_optimizer_would_be_seen(bench: Bench, whole: Run) -> None:
    """The fault planted beside the tolerance above: resume without Adam's moments."""
    steps = len(bench.dataset.train) // SCHEDULE.batch_size
    with pytest.raises(KeyboardInterrupt):
        bench.go("cut", Interrupting(after_calls=3 * steps + 2))
    state = bench.runs / "cut/checkpoints/state.npz"
    with np.load(state) as archive:
        arrays = {
            name: np.zeros_like(value) if name.startswith("optimizer_") else value
            for name, value in archive.items()
        }
    np.savez(state, **arrays)
    assert not np.allclose(numbers(bench.go("cut")), numbers(whole), rtol=1e-5, atol=1e-6)


def test_a_damaged_checkpoint_is_one_line(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.go("cut", Interrupting(after_calls=9))
    state = bench.runs / "cut/checkpoints/state.npz"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"cannot read .*state\.npz.*delete") as caught:
        bench.go("cut")
    assert "\n" not in str(caught.value)


def test_a_diverging_loss_stops(bench: Bench) -> None:
    bench.schedule = dataclasses.replace(SCHEDULE, head_epochs=0, label_smoothing=0.0)
    bench.pixels = dataclasses.replace(bench.pixels, array=np.array(bench.pixels.array))
    normalization = Normalization(0.0, 1e-38)
    network = tiny_network(3)
    graph = training_graph(network, normalization, bench.schedule)
    run = Run(bench.runs / "nan")
    loop = TrainingLoop(run, bench.schedule, network, graph, SilentProgress())
    with pytest.raises(TrainingDiverged, match=r"lower schedule\.full_learning_rate"):
        loop.go(bench.images("train"), bench.images("validation"))


def test_frozen_layers_do_not_move(bench: Bench) -> None:
    network = tiny_network(3)
    graph = training_graph(network, Normalization(127.0, 128.0), SCHEDULE)
    compile_stage(graph, network, Stage("head", 1, 0.1, trained_blocks=1), 4, SCHEDULE)
    before = {layer.name: layer.get_weights() for layer in network.layers}
    images = bench.images("train")
    chosen = np.arange(8)
    targets = np.eye(3, dtype=np.float32)[images.labels[chosen]]
    for _ in range(3):
        graph.train_on_batch(images.take(chosen), targets)
    moved = {
        layer.name
        for layer in network.layers
        for old, new in zip(before[layer.name], layer.get_weights(), strict=True)
        if not np.array_equal(old, new)
    }
    assert moved == {"block_01_conv", "block_01_bn", "logits"}


def test_augmentation_works_in_training_only(bench: Bench) -> None:
    network = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten()])
    graph = training_graph(network, Normalization(127.0, 128.0), STANDARD)
    images = bench.images("train").take(np.arange(4))
    expected = (images.astype(np.float32).reshape(4, -1) - 127.0) / 128.0
    plain = np.asarray(graph(images, training=False))
    np.testing.assert_allclose(plain, expected, atol=1e-6)
    assert np.abs(np.asarray(graph(images, training=True)) - expected).mean() > 0.02
    off = dataclasses.replace(SCHEDULE, augmentation="none", horizontal_flip=False)
    graph = training_graph(network, Normalization(127.0, 128.0), off)
    np.testing.assert_allclose(np.asarray(graph(images, training=True)), expected, atol=1e-6)


def test_predictions_do_not_depend_on_the_batch_size(bench: Bench) -> None:
    graph = training_graph(tiny_network(3), Normalization(127.0, 128.0), SCHEDULE)
    images = bench.images("test")
    whole = predict(graph, images, len(images))
    assert whole.shape == (len(images), 3)
    np.testing.assert_allclose(predict(graph, images, 4), whole, atol=1e-5)

    class Counting:
        def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
            assert len(pixels) == len(images), "a large batch is not filled up with copies"
            return np.zeros((len(pixels), 3), np.float32)

    assert predict(Counting(), images, 65_536).shape == whole.shape


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
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder("photos", COUNTS)
    shutil.copy(folder / "red/0000.png", folder / "red/twin.png")
    (folder / "red/cut.png").write_bytes((folder / "red/0001.png").read_bytes()[:500])
    run = Bench(folder, tmp_path / "runs", SCHEDULE).go("whole")
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


def weights(run: Run) -> list[np.ndarray]:
    network = keras.saving.load_model(run.model_path, compile=False)
    arrays: list[np.ndarray] = network.get_weights()
    return arrays


PROGRAM = """
import json, sys
from smidgen.train import TrainRecipe
from smidgen.train.loop import train
from smidgen.train.progress import ConsoleProgress
run = train(TrainRecipe.from_mapping(json.loads(sys.argv[1])), sys.argv[2],
            progress=ConsoleProgress())
loaded = [name for name in ("tensorflow", "jax") if name in sys.modules]
print(json.dumps([run.test_metrics.top1_percent, len(run.metrics), loaded]))
"""


def command(folder: Path, run: Path, python: str = sys.executable, **schedule: Any) -> list[str]:
    recipe = {
        "data": {"folder": str(folder), "image_size": 64},
        "model": {"weights": "none"},
        "schedule": {"batch_size": 16, "augmentation": "none", **schedule},
    }
    return [python, "-c", textwrap.dedent(PROGRAM), json.dumps(recipe), str(run)]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_goes_on(
    make_folder: Callable[..., Path], tmp_path: Path, sign: signal.Signals
) -> None:
    """The real network, killed after its first epoch, then run again to the end."""
    folder = make_folder("photos", COUNTS)
    (folder / "red/cut.png").write_bytes((folder / "red/0000.png").read_bytes()[:500])
    arguments = command(folder, tmp_path / "run", head_epochs=2, full_epochs=1)
    victim = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    metrics = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 180
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(sign)
    victim.communicate()
    assert victim.returncode != 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "model.keras" not in names
    assert not [name for name in names if name.startswith(".")] or sign == signal.SIGKILL
    again = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "resuming after epoch" in again.stderr
    assert "skipped 1 image, listed in" in again.stderr
    assert "red/cut.png," in (tmp_path / "run/skipped.csv").read_text()
    assert json.loads(again.stdout.splitlines()[-1])[1] == 3


@pytest.mark.slow
def test_it_trains_on_jax_where_tensorflow_is_not_installed(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    python = os.environ.get("SMIDGEN_TEST_JAX_PYTHON")
    if not python:
        pytest.skip("SMIDGEN_TEST_JAX_PYTHON names no interpreter with JAX and without TensorFlow")
    arguments = command(
        make_folder("photos", COUNTS), tmp_path / "run", python, backend="jax",
        head_epochs=1, full_epochs=1, augmentation="standard",
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{REPO / 'train'}{os.pathsep}{REPO / 'runtime'}"}
    environment.pop("KERAS_BACKEND", None)
    shown = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert shown.returncode == 0, shown.stderr
    top1, epochs, loaded = json.loads(shown.stdout.splitlines()[-1])
    assert (epochs, loaded) == (2, ["jax"])
    assert 0 <= top1 <= 100
    assert Run.open(tmp_path / "run").provenance["backend"] == "jax"
    network = keras.saving.load_model(tmp_path / "run/model.keras", compile=False)
    assert network.output_shape == (None, 3)
