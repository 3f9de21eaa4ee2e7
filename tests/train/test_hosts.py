"""Several devices and several processes make the Run that one makes. Two CPU processes stand for
two hosts; no GPU is used here, and no second machine."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from smidgen.runtime.errors import SchemaError
from smidgen.train import DataRecipe, ScheduleRecipe, TrainRecipe
from smidgen.train.errors import HostsError
from smidgen.train.hosts import ALONE, Hosts, joined
from smidgen.train.seeing.step_log import read_steps
from smidgen.train.stderr_guard import Sieve

REPO = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("host_process.py")
STEPS = 24
COUNTS = {"red": 30, "blue": 30, "green": 30}
LOST = "smidgen: another process of this training is lost"


class Ended(NamedTuple):
    """A process that ended: its exit status, its answer, its standard error."""

    status: int
    answer: dict[str, Any]
    stderr: str


@dataclasses.dataclass(frozen=True)
class Place:
    """Images, and Runs of the tiny network on them."""

    folder: Path
    python: str

    def start(self, run: str, devices: int = 1, **order: Any) -> subprocess.Popen[str]:
        schedule = {"batch_size": 8, "head_epochs": 1, "full_epochs": 2, "feature_views": 0}
        schedule |= {"augmentation": "none", **order.pop("schedule", {})}
        told = {
            "photos": str(self.folder / "photos"),
            "run": str(self.folder / run),
            "pixels": str(self.folder / "pixels"),
            "schedule": schedule,
            **order,
        }
        environment = {
            **os.environ,
            "PYTHONPATH": f"{REPO / 'train'}{os.pathsep}{REPO / 'runtime'}",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            **self.quick_compiler(),
        }
        environment.pop("KERAS_BACKEND", None)
        return subprocess.Popen(
            [self.python, str(PROGRAM), json.dumps(told)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def quick_compiler(self) -> dict[str, str]:
        """Compiling takes longer than these trainings: it is done simply, and once for all
        processes that run the same program."""
        return {
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def one(self, run: str, **order: Any) -> Ended:
        (ended,) = finished([self.start(run, **order)])
        assert ended.status == 0, ended.stderr
        return ended

    def start_two(
        self, run: str, kill: dict[int, int] | None = None, **order: Any
    ) -> list[subprocess.Popen[str]]:
        """``kill``: process id to the training batch at which it kills itself."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [
            self.start(
                run, coordinator=f"127.0.0.1:{port}", processes=2, process_id=index,
                kill_at_step=(kill or {}).get(index, 0), **order,
            )
            for index in range(2)
        ]  # fmt: skip

    def losses(self, run: str) -> np.ndarray:
        return np.array([row.loss for row in read_steps(self.folder / run / "steps.jsonl")])

    def epochs(self, run: str) -> np.ndarray:
        lines = (self.folder / run / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return np.array([[row["loss"], row["top1"], row["val_loss"]] for row in rows])


def finished(processes: list[subprocess.Popen[str]]) -> list[Ended]:
    ended = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=500)
        lines = [line for line in stdout.splitlines() if line.startswith("{")]
        answer = json.loads(lines[-1]) if lines else {}
        ended.append(Ended(process.returncode, answer, stderr))
    return ended


@pytest.fixture(scope="module")
def place(make_folder_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    python = os.environ.get("SMIDGEN_TEST_JAX_PYTHON")
    if not python:
        pytest.skip("SMIDGEN_TEST_JAX_PYTHON names no interpreter with JAX and without TensorFlow")
    folder = tmp_path_factory.mktemp("hosts")
    make_folder_in(folder / "photos", COUNTS)
    return Place(folder, python)


@pytest.fixture(scope="module")
def plain(place: Place) -> str:
    """The Run of one process with one device, never disturbed."""
    place.one("plain")
    return "plain"


@pytest.mark.slow
def test_two_processes_and_two_devices_make_the_run_of_one(place: Place) -> None:
    """With MixUp, CutMix, RandAugment, dropout and batch norm: what mixes and draws across images
    must not see where they lie."""
    schedule = {"augmentation": "strong", "head_epochs": 0, "full_epochs": 3}
    alone = place.one("alone", schedule=schedule)
    place.one("devices", devices=2, schedule=schedule)
    pair = finished(place.start_two("pair", schedule=schedule))
    assert [ended.status for ended in pair] == [0, 0], pair
    expected = place.losses("alone")
    assert len(expected) == STEPS
    for run in ("devices", "pair"):
        np.testing.assert_allclose(place.losses(run), expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(place.epochs(run), place.epochs("alone"), rtol=0, atol=1e-4)
    tested = [
        json.loads((place.folder / run / "test_metrics.json").read_text())["confusion"]
        for run in ("alone", "devices", "pair")
    ]
    assert tested[0] == tested[1] == tested[2]
    check_shares(alone, pair)


def check_shares(alone: Ended, pair: list[Ended]) -> None:
    """Each read its part of the images only, and process 0 alone wrote."""
    shown = 6  # by process 0, on the sheet of augmentations, before the first batch
    leader, follower = (ended.answer for ended in pair)
    read = [leader["taken"][shown:], follower["taken"]]
    assert [len(rows) for rows in read] == [STEPS * 4, STEPS * 4]
    assert not set(read[0]) & set(read[1])
    assert len(alone.answer["taken"][shown:]) == STEPS * 8
    assert set(read[0]) | set(read[1]) == set(alone.answer["taken"][shown:])
    assert len(follower["answered"]) < 0.6 * len(alone.answer["answered"])
    assert leader["wrote"] == alone.answer["wrote"]
    assert "test_metrics.json" in leader["wrote"]
    assert not {"model.keras", "metrics.jsonl", "test_metrics.json"} & set(follower["wrote"])


@pytest.mark.slow
def test_two_processes_with_one_shard_would_be_seen(place: Place, plain: str) -> None:
    """The fault planted beside the tolerance above: both read the first part of each batch."""
    pair = finished(place.start_two("wrong", is_wrong_shard=True))
    assert [ended.status for ended in pair] == [0, 0], pair
    differences = np.abs(place.losses("wrong") - place.losses(plain))
    assert differences[0] > 1e-3
    assert set(pair[0].answer["taken"][6:]) == set(pair[1].answer["taken"])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_other_and_the_run_goes_on(
    place: Place, plain: str, victim: int
) -> None:
    run, options = f"lost-{victim}", {"checkpoint_every_steps": 3}
    pair = place.start_two(run, kill={victim: 13}, **options)
    pair[victim].wait(timeout=500)
    began = time.monotonic()
    pair[1 - victim].wait(timeout=60)
    ended = finished(pair)
    assert ended[victim].status == -signal.SIGKILL
    assert ended[1 - victim].status not in (0, -signal.SIGKILL)
    check_line(ended[1 - victim].stderr)
    assert time.monotonic() - began < 60
    assert not (place.folder / run / "test_metrics.json").exists()
    again = finished(place.start_two(run, **options))
    assert [ended.status for ended in again] == [0, 0], again
    assert 0 < len(again[1].answer["taken"]) < STEPS * 4  # it did not begin anew
    np.testing.assert_allclose(place.losses(run), place.losses(plain), rtol=0, atol=1e-4)
    np.testing.assert_allclose(place.epochs(run), place.epochs(plain), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_process_that_is_silent_counts_as_lost(place: Place) -> None:
    pair = place.start_two("silent", schedule={"full_epochs": 2000})
    steps = place.folder / "silent/steps.jsonl"
    deadline = time.monotonic() + 300
    while len(read_steps(steps)) < 12 and time.monotonic() < deadline:
        time.sleep(0.1)
    pair[1].send_signal(signal.SIGSTOP)
    try:
        pair[0].wait(timeout=60)
    finally:
        pair[1].kill()
    leader, _ = finished(pair)
    assert leader.status != 0
    check_line(leader.stderr)


def check_line(stderr: str) -> None:
    """One line says what happened, and nothing of JAX's beside it."""
    first, last = stderr.splitlines()
    assert first.startswith("process ")
    assert last.startswith(LOST)
    assert last.endswith("and it goes on from the last checkpoint")


@pytest.mark.parametrize(
    ("hosts", "line"),
    [
        (("", 2, 0), "coordinator = '', processes = 2.*expected a coordinator HOST:PORT"),
        (("host", 2, 0), "coordinator = 'host'"),
        (("host:0", 2, 0), "coordinator = 'host:0'"),
        (("host:70000", 2, 0), "coordinator = 'host:70000'"),
        (("host:80", 1, 0), "processes = 1.*expected at least 2 processes"),
        (("host:80", 2, 2), "process_id = 2: expected"),
        (("host:80", 2, -1), "process_id = -1: expected"),
        (("", 0, 1), "process_id = 1"),
        (("", -3, -1), "processes = -3"),
    ],
)
def test_what_is_said_of_the_hosts_is_checked(hosts: tuple[str, int, int], line: str) -> None:
    with pytest.raises(SchemaError, match=line) as caught:
        Hosts(*hosts)
    assert "\n" not in str(caught.value)


def test_several_processes_need_jax() -> None:
    recipe = TrainRecipe(DataRecipe("photos"), schedule=ScheduleRecipe(backend="tensorflow"))
    with (
        pytest.raises(HostsError, match=r"2 processes with schedule\.backend = 'tensorflow'"),
        joined(Hosts("127.0.0.1:9876", 2, 0), recipe, print),
    ):
        pass
    with joined(Hosts(), recipe, print) as group:
        assert group == ALONE
        assert group.leads
        assert group.share(b"word") == b"word"


DUMP = b"""\
E1122 11:14:51.532594   22901 coordination_service_agent.cc:289] Polled an error from coordination
F1122 11:14:51.532633   22901 client.h:80] Terminating process because the JAX distributed service
*** Check failure stack trace: ***
    @     0x7f6238a40634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_the_dump_of_a_lost_process_becomes_one_line(chunk: int) -> None:
    def sieved(text: bytes) -> bytes:
        written: list[bytes] = []
        sieve = Sieve("one line", written.append)
        for start in range(0, len(text), chunk):
            sieve.take(text[start : start + chunk])
        sieve.end()
        return b"".join(written)

    before = b"\r 10 %|##  | F 7\nE is a letter\nFast\nE1122 11:14 other.cc:1] no verdict\nhalf"
    assert sieved(before) == before
    assert sieved(b"ok\n" + DUMP) == b"ok\none line\n"
    assert sieved(b"\0smidgen: told\nsmidgen: ours\n" + DUMP) == b"smidgen: ours\n"


def test_a_bar_is_shown_at_once_behind_the_guard() -> None:
    """What ends in no line feed is not waited for; and everything is as before afterwards."""
    program = (
        "import os, sys\n"
        "from smidgen.train.stderr_guard import StderrGuard\n"
        "guard = StderrGuard('line')\n"
        "os.write(2, b'bar')\n"
        "sys.stdin.readline()\n"
        "guard.leave()\n"
        "os.write(2, b'E1122 1 client.h:80] Terminating process\\n')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    assert os.read(process.stderr.fileno(), 3) == b"bar"
    process.stdin.write(b"\n")
    assert process.stderr.read() == b"E1122 1 client.h:80] Terminating process\n"
    assert process.wait() == 0
