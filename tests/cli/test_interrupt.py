"""Ctrl-C with real processes: one line, status 130, no traceback, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smidgen.bench.measurement import read

PARENT = """
import sys
from pathlib import Path
from smidgen.cli.endings import ending
from smidgen.cli.interrupts import take_signals
from smidgen.cli.line import run_line
from smidgen.cli.recipe_file import line_recipe
from smidgen.cli.stages import ProcessRunner

folder, child = Path(sys.argv[1]), sys.argv[2]
take_signals()
try:
    recipe = line_recipe({"data": {"folder": str(folder)}})
    runner = ProcessRunner([sys.executable, child, str(folder)], patience_s=0.3)
    run_line(recipe, folder / "run", runner=runner, progress=print)
except BaseException as error:
    sys.exit(ending(error, ["run"]))
"""
CHILD = """
import os, sys, time
from pathlib import Path
from smidgen.cli.endings import ending
from smidgen.cli.interrupts import take_signals
try:
    take_signals()
    Path(sys.argv[1], "child.pid").write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)
except BaseException as error:
    sys.exit(ending(error, ["train"]))
"""
DEAF_CHILD = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
Path(sys.argv[1], "child.pid").write_text(str(os.getpid()))
time.sleep(60)
"""
LINE = "smidgen: interrupted during train; run the same command again to go on\n"


class Line:
    """A parent with its child, in a process group of their own."""

    def __init__(self, folder: Path, child: str, parent: str = PARENT, *rest: str) -> None:
        script = folder / "child.py"
        script.write_text(child)
        self.process = subprocess.Popen(
            [sys.executable, "-c", parent, str(folder), str(script), *rest],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.pid_file = folder / "child.pid"

    def wait_for_child(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.pid_file.exists() and self.pid_file.read_text():
                return int(self.pid_file.read_text())
            time.sleep(0.02)
        raise AssertionError("the child did not start")

    def end(self) -> tuple[int, str]:
        try:
            _, stderr = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
        return self.process.returncode, stderr


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_in_the_terminal_reaches_both_and_is_told_once(tmp_path: Path) -> None:
    line = Line(tmp_path, CHILD)
    child = line.wait_for_child()
    os.killpg(line.process.pid, signal.SIGINT)
    assert line.end() == (130, LINE)
    assert not is_alive(child)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_alone_is_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    line = Line(tmp_path, CHILD)
    child = line.wait_for_child()
    line.process.send_signal(number)
    assert line.end() == (130, LINE)
    assert not is_alive(child)


def test_a_second_ctrl_c_kills_a_child_that_does_not_listen(tmp_path: Path) -> None:
    line = Line(tmp_path, DEAF_CHILD)
    child = line.wait_for_child()
    for _ in range(2):
        os.killpg(line.process.pid, signal.SIGINT)
        time.sleep(0.6)
    assert line.end() == (130, LINE)
    assert not is_alive(child)


def test_ctrl_c_while_the_child_is_starting_shows_no_traceback(tmp_path: Path) -> None:
    """At any moment: the interrupt is sent after more and more of Python's start."""
    for step in range(4):
        folder = tmp_path / str(step)
        folder.mkdir()
        line = Line(folder, CHILD)
        deadline = time.monotonic() + 30
        while not (folder / "run" / "line.toml").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.02 * step)
        os.killpg(line.process.pid, signal.SIGINT)
        status, stderr = line.end()
        assert status == 130
        assert "Traceback" not in stderr
        assert stderr in (LINE, LINE.replace(" during train", ""))


THREADED_PARENT = PARENT.replace(
    "take_signals()\n",
    """take_signals()
import os, signal, subprocess, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
class SlowPopen(subprocess.Popen):
    def _execute_child(self, *rest):
        super()._execute_child(*rest)
        os.kill(os.getpid(), signal.Signals[sys.argv[3]])
        time.sleep(0.3)
subprocess.Popen = SlowPopen
""",
    1,
)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_between_fork_and_handle_leaves_no_child(tmp_path: Path, name: str) -> None:
    """It came while the child was made: the child has not got it, its handle is not back yet."""
    line = Line(tmp_path, CHILD, THREADED_PARENT, name)
    status, stderr = line.end()
    assert (status, stderr) == (130, LINE)
    assert not line.pid_file.exists() or not is_alive(int(line.pid_file.read_text()))


def test_ctrl_c_in_a_benchmark_keeps_what_was_measured(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    pytest.importorskip("onnxruntime")
    process = subprocess.Popen(
        [sys.executable, "-m", "smidgen.cli", "bench", str(make_bundle()), "--rounds", "999"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    journal = tmp_path / "bench" / "measurements.jsonl"
    deadline = time.monotonic() + 30
    while not journal.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, "")
    lines = [line for line in stderr.splitlines() if not line.startswith("bench   round")]
    assert lines == ["smidgen: interrupted"]
    assert len(read(journal)) >= 1
    assert sorted(path.name for path in journal.parent.iterdir()) == ["measurements.jsonl"]
