"""Training as a process of its own: killed and called again, and without TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from smidgen.train import Run

REPO = Path(__file__).resolve().parents[3]
COUNTS = {"red": 24, "blue": 24, "green": 24}


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
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling takes longer than training
    shown = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert shown.returncode == 0, shown.stderr
    top1, epochs, loaded = json.loads(shown.stdout.splitlines()[-1])
    assert (epochs, loaded) == (2, ["jax"])
    assert 0 <= top1 <= 100
    assert Run.open(tmp_path / "run").provenance["backend"] == "jax"
    network = keras.saving.load_model(tmp_path / "run/model.keras", compile=False)
    assert network.output_shape == (None, 3)
