"""The comparison of trainings: the gate, the turns, the tables, and every worker in miniature."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.training import accuracy, memory
from smidgen.bench.training.__main__ import main
from smidgen.bench.training.accuracy import Epoch, Race, watched
from smidgen.bench.training.contenders import Field, asleep, linked_rooms
from smidgen.bench.training.contest import Contender, Contest, Sample, Worker, compare
from smidgen.bench.training.gate import Gate, Over
from smidgen.bench.training.setting import Setting
from smidgen.bench.training.speed import as_mapping, as_markdown, busiest_wait, rows

SETTING = Setting("photos", 32, 4, "full", "batch", "float32", "tensorflow", threads=1)
ROOM = "smidgen.bench.training."
JAX_PYTHON = os.environ.get("SMIDGEN_TEST_JAX_PYTHON", "")
TIMM_PYTHON = os.environ.get("SMIDGEN_TEST_TIMM_PYTHON", "")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """12 small JPEG files in two class folders."""
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        path = tmp_path / "photos" / f"class_{number % 2}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((64, 48)).save(path)
    return tmp_path / "photos"


class Ticking:
    """A clock that tells what it was set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeTraining:
    """A training of known speed. See ``Training``."""

    def __init__(self, name: str, seconds: float, fails_in: int = 10**9) -> None:
        self.name, self.first_step_s = name, 10 * seconds
        self._seconds, self._left = seconds, fails_in
        self.asked: list[tuple[int, int]] = []
        self.is_closed = False

    def run(self, warm_up: int, steps: int) -> Sample:
        """See ``Training``."""
        self._left -= 1
        if self._left < 0:
            raise ContenderFailed(f"{self.name}: out of memory")
        self.asked.append((warm_up, steps))
        return Sample(self._seconds * steps, 4 * steps, 1.0, 0.25)

    def close(self) -> None:
        """See ``Training``."""
        self.is_closed = True


def test_the_gate_counts_what_was_asked_for_and_nothing_else() -> None:
    clock, cpu = Ticking(), Ticking()
    asked = [{"warm_up": 2, "steps": 3}, {"warm_up": 0, "steps": 1}]
    answers = io.StringIO()
    gate = Gate(io.StringIO("".join(f"{json.dumps(a)}\n" for a in asked)), answers, clock, cpu)
    clock.now = 5.0
    gate.built({"keras": "3"})
    waits: list[int] = []
    costs = [2.0, 100.0, 100.0, 1.0, 2.0, 4.0, 8.0]  # first; two to warm up; three; one
    with pytest.raises(Over):
        for number, cost in enumerate(costs):
            clock.now += cost
            gate.step(4, partial(waits.append, number))
    first, three, one = map(json.loads, answers.getvalue().splitlines())
    assert first == {"first_step_s": 2.0, "versions": {"keras": "3"}}
    assert (three["seconds"], three["images"]) == (7.0, 12)
    assert (one["seconds"], one["images"], one["waited_s"]) == (8.0, 4, 0.0)
    assert waits == [0, 2, 5, 6]  # an accelerator is waited for where a time is taken


def test_trainings_take_turns_and_one_that_fails_is_left_out() -> None:
    fakes = [FakeTraining("ours", 0.5), FakeTraining("slow", 1.0), FakeTraining("dies", 0.5, 2)]
    makers: list[Callable[[], FakeTraining]] = [partial(lambda one: one, fake) for fake in fakes]

    def absent() -> FakeTraining:
        raise ContenderFailed("absent: no such file")

    said: list[str] = []
    contest = compare([*makers, absent], 3, 2.0, said.append)
    assert fakes[0].asked == [(2, 2)] + [(2, 4)] * 3 and fakes[1].asked[1:] == [(2, 2)] * 3
    assert contest.failures == ["absent: no such file", "dies: out of memory"]
    assert all(fake.is_closed for fake in fakes)
    assert contest.first_step_s == {"ours": 5.0, "slow": 10.0}
    found = rows(contest, "ours")
    assert [(row.name, row.images_per_second) for row in found] == [("slow", 4.0), ("ours", 8.0)]
    assert found[0].ratio is not None and found[0].ratio.value == pytest.approx(2.0)
    assert busiest_wait(contest) == 0.25
    lines = as_markdown(found, "All", "ours").splitlines()
    assert lines[4] == "| slow | 4.0 | 2.00 [2.00, 2.00] | 10.00 |"
    assert lines[5] == "| ours | 8.0 |  | 5.00 |"
    assert as_mapping(contest, SETTING)["samples"]["slow"][0]["seconds"] == 2.0
    assert [row.ratio for row in rows(contest, "gone")] == [None, None]


def test_the_field_names_who_takes_part(tmp_path: Path) -> None:
    field = Field(SETTING, ("float32", "bfloat16"), Path("python"), tmp_path)
    assert [contender.name for contender in field.contenders()] == [
        "smidgen, float32",
        "smidgen, bfloat16",
        "keras fit, float32, jit_compile False",
        "keras fit, float32, jit_compile auto",
        "timm, float32",
        "timm, bfloat16",
    ]
    head = dataclasses.replace(SETTING, stage="head", backend="jax")
    found = Field(head, ("bfloat16",), None, tmp_path).contenders()
    stages = [Setting.from_json(contender.command[3]).stage for contender in found]
    assert stages == ["head", "features-pass", "features", "head"]
    assert all(contender.environment["OMP_NUM_THREADS"] == "1" for contender in found)


def test_the_rooms_are_found_without_the_environment_that_they_are_in(tmp_path: Path) -> None:
    roots = linked_rooms(linked_rooms(tmp_path))
    rooms = sorted(path for path in (roots / "smidgen").iterdir())
    assert [room.name for room in rooms] == ["bench", "runtime", "train"]
    assert [(room / "errors.py").is_file() for room in rooms] == [True] * 3


def test_a_process_that_dies_is_one_line() -> None:
    dead = Contender("dead", (sys.executable, "-c", "raise SystemExit('no GPU')"))
    with pytest.raises(ContenderFailed, match=r"^dead: no GPU$"):
        Worker(dead)
    with pytest.raises(ContenderFailed, match=r"^gone: .*No such file"):
        Worker(Contender("gone", ("/nowhere/python",)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "stage", "source"),
    [
        ("smidgen_worker", "full", "files"),
        ("smidgen_worker", "head", "batch"),
        ("smidgen_worker", "features", "batch"),
        ("smidgen_worker", "features-pass", "files"),
        ("keras_worker", "full", "files"),
        ("keras_worker", "head", "batch"),
    ],
)
def test_every_worker_trains(photos: Path, module: str, stage: str, source: str) -> None:
    """Every stage and every source of each worker, which knows nothing of the one where it makes
    the other; the head with files is trained on JAX below."""
    setting = dataclasses.replace(SETTING, folder=str(photos), stage=stage, source=source)
    command = (sys.executable, "-m", ROOM + module, setting.to_json())
    worker = Worker(Contender(module, command, asleep(1)))
    try:
        sample = worker.run(1, 4)
        assert (sample.images, worker.run(0, 1).images) == (16, 4)
        assert sample.seconds > 0 and worker.first_step_s > 0 and "keras" in worker.versions
    finally:
        worker.close()


@pytest.mark.slow
@pytest.mark.skipif(not JAX_PYTHON, reason="SMIDGEN_TEST_JAX_PYTHON names no Python with JAX")
@pytest.mark.parametrize("module", ["smidgen_worker", "keras_worker"])
def test_on_jax(photos: Path, tmp_path: Path, module: str) -> None:
    setting = dataclasses.replace(
        SETTING, folder=str(photos), stage="head", source="files", backend="jax"
    )
    roots = {"PYTHONPATH": str(linked_rooms(tmp_path / "rooms")), "KERAS_BACKEND": "jax"}
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes longer than training
    command = (JAX_PYTHON, "-m", ROOM + module, setting.to_json())
    worker = Worker(Contender(module, command, {**asleep(1), **roots, **quick}))
    try:
        assert worker.run(1, 2).images == 8
    finally:
        worker.close()


if TIMM_PYTHON:  # torch is 3 GB and not in our locks: docs/training-speed.md says how

    @pytest.mark.slow
    @pytest.mark.parametrize("source", ["batch", "files"])
    @pytest.mark.parametrize("stage", ["full", "head"])
    def test_timm_trains(photos: Path, tmp_path: Path, stage: str, source: str) -> None:
        setting = dataclasses.replace(SETTING, folder=str(photos), stage=stage, source=source)
        field = Field(setting, ("bfloat16",), Path(TIMM_PYTHON), tmp_path)
        worker = Worker(field.contenders()[-1])
        try:
            assert worker.run(1, 2).images == 8
        finally:
            worker.close()


def test_minutes_to_an_accuracy() -> None:
    epochs = (Epoch(30.0, 0.5), Epoch(60.0, 0.8), Epoch(90.0, 0.7))
    ours = Race("ours", (), epochs, 120.0, 71.5, 200)
    theirs = Race("theirs", (), (Epoch(60.0, 0.6), Epoch(240.0, 0.75)), 300.0, 70.0, 200)
    assert [ours.seconds_to(percent) for percent in (50, 75, 80, 81)] == [30.0, 60.0, 60.0, None]
    lines = accuracy.as_markdown([ours, theirs], [60, 80]).splitlines()
    assert lines[0].startswith("| training | 60 % after, min | 75 % after, min | 80 % after, min |")
    assert lines[2] == "| ours | 1.00 | 1.00 | 1.00 | 2.00 | 80.00 % | 71.50 % |"
    assert lines[3] == "| theirs | 1.00 | 4.00 | never | 5.00 | 75.00 % | 70.00 % |"
    assert lines[-1].endswith("200 test images.")


def test_epochs_are_seen_when_they_are_written(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    code = (
        "import sys, time\nstream = open(sys.argv[1], 'a')\n"
        "for top1 in (0.25, 0.5):\n"
        "    print(f'{{\"val_top1\": {top1}}}', file=stream, flush=True); time.sleep(1)\n"
        "stream.write('{\"val_')\n"
    )
    seconds, epochs = watched([sys.executable, "-c", code, str(metrics)], {}, metrics)
    assert [epoch.val_top1 for epoch in epochs] == [0.25, 0.5]
    assert 0 < epochs[0].seconds < epochs[1].seconds < seconds
    with pytest.raises(ContenderFailed, match=r"\.\.\.: no images$"):
        watched([sys.executable, "-c", "raise SystemExit('no images')"], {}, metrics)


def test_the_peak_is_that_of_the_process() -> None:
    def peak(mib: int) -> float:
        code = f"import sys; held = bytearray({mib} * 2**20)"
        return memory.peak_bytes([sys.executable, "-c", code], dict(os.environ)) / 2**20

    ballast = bytearray(700 * 2**20)  # of this process: it does not count
    small, large = peak(300), peak(500)
    del ballast
    assert 300 < small < 350
    assert 190 < large - small < 210
    with pytest.raises(ContenderFailed, match=r"^smidgen train: no room$"):
        memory.peak_bytes([sys.executable, "-c", "raise SystemExit('no room')"], {})
    table = memory.as_markdown([memory.Peak(1000, 2**30), memory.Peak(10_000, 2**30)])
    assert table.splitlines()[-1] == "| 10,000 | 1,024 |"


def test_the_pictures_of_noise_differ(tmp_path: Path) -> None:
    memory.draw(tmp_path, 8)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len({path.read_bytes() for path in files}) == 8
    assert {path.parent.name for path in files} == {"0", "1", "2", "3"}


def test_without_images_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "none")]) == 2 == main([])
    assert capsys.readouterr().err.splitlines()[0] == (
        f"FOLDER is {tmp_path / 'none'}: name a folder of images"
    )
    assert busiest_wait(Contest()) == 0.0
