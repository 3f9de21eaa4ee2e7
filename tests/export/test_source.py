"""Float models from a Run, the backend that export insists on, and what stays light to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smidgen.export.errors import SourceError
from smidgen.export.source import ChannelNormalization, from_run
from smidgen.train.data import Dataset, Example
from smidgen.train.recipe import DataRecipe, ModelRecipe, ScheduleRecipe, TrainRecipe
from smidgen.train.run import Run


@pytest.fixture
def run(tmp_path, small_network) -> Run:
    """A finished Run folder with a small network in it."""
    recipe = TrainRecipe(
        data=DataRecipe(folder=str(tmp_path / "photos"), image_size=64),
        model=ModelRecipe(),
        schedule=ScheduleRecipe(),
    )
    run = Run(tmp_path / "leaves")
    run.folder.mkdir()
    run.keep_recipe(recipe)
    folder = tmp_path / "photos"
    train, validation, test = (
        Example(str(folder / f"{n}.png"), n % 2, f"{n:064x}") for n in range(3)
    )
    run.keep_dataset(
        Dataset(str(folder), ("oak", "ash"), train=(train,), validation=(validation,), test=(test,))
    )
    small_network(64, 2).save(run.model_path)
    run.provenance_path.write_text(json.dumps({"commit": "abc", "versions": {"keras": "3"}}))
    run.test_metrics_path.write_text("{}")
    return run


def test_a_run_gives_its_train_and_test_split_and_its_model(run):
    source = from_run(run)
    assert (source.name, source.labels, source.commit) == ("leaves", ("oak", "ash"), "abc")
    assert [picture.sha256[-1] for picture in source.calibration_pool] == ["0"]
    assert [(picture.sha256[-1], picture.label) for picture in source.held_out] == [("2", 0)]
    assert [(picture.sha256[-1], picture.label) for picture in source.validation] == [("1", 1)]
    assert source.normalization == ChannelNormalization((127.0,) * 3, (128.0,) * 3)
    assert source.preprocessing.width == 64
    assert "[data]" in source.recipe_toml
    logits = source.load()(np.zeros((1, 64, 64, 3), np.float32))
    assert logits.shape == (1, 2)


def test_an_unfinished_run_and_a_damaged_model_are_refused(run):
    source = from_run(run)
    whole = run.model_path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[:100], flipped):
        run.model_path.write_bytes(damaged)
        with pytest.raises(
            SourceError, match=r"cannot load .*model\.keras .*train again"
        ) as caught:
            source.load()
        assert "\n" not in str(caught.value)
    run.model_path.unlink()
    with pytest.raises(SourceError, match="holds no finished model"):
        from_run(run)


def child(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_another_backend_is_an_error_that_says_what_to_do():
    program = (
        "import sys, types\n"
        "sys.modules['keras'] = keras = types.ModuleType('keras')\n"  # JAX need not be installed
        "keras.config = types.SimpleNamespace(backend=lambda: 'jax')\n"
        "from smidgen.export.errors import BackendError\n"
        "try:\n"
        "    import smidgen.export.tensorflow_backend\n"
        "except BackendError as error:\n"
        "    print(error)\n"
    )
    done = child(program)
    assert "Keras already runs on jax in this process" in done.stdout, done.stderr
    assert "process of its own" in done.stdout


def test_light_modules_import_nothing_heavy():
    heavy = {"tensorflow", "keras", "onnx", "onnxruntime", "PIL", "ai_edge_litert", "flatbuffers"}
    program = (
        "import sys, smidgen.export, smidgen.export.recipe, smidgen.export.line, "
        "smidgen.export.source, smidgen.export.gate.judge_worker\n"
        f"print({heavy!r} & set(sys.modules))"
    )
    assert child(program).stdout.strip() == "set()"


def test_converters_are_silent_on_both_streams():
    program = (
        "from smidgen.export.tensorflow_backend import captured_output\n"
        "import os, sys\n"
        "with captured_output() as capture:\n"
        "    print('python'); os.system('echo native; echo error >&2'); os.write(2, b'two')\n"
        "    capture.seek(0); text = capture.read()\n"
        "print(all(word in text for word in ('native', 'error', 'two')))\n"
    )
    done = child(program)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_worker_module_is_where_the_judge_looks_for_it():
    done = subprocess.run(
        [sys.executable, "-m", "smidgen.export.gate.judge_worker", "nowhere.onnx", "task", "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nowhere.onnx" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not Path("out").exists()
