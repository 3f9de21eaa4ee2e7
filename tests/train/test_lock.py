"""Two processes in one folder of results: the second waits, whatever becomes of the first."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from smidgen.runtime.errors import OutputError
from smidgen.train.lock import sole_writer

HOLDER = """
import pathlib, sys, time
from smidgen.train.lock import sole_writer
with sole_writer(pathlib.Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_waits_until_the_first_is_killed(tmp_path: Path) -> None:
    folder, notes, entered = tmp_path / "runs" / "a", [], threading.Event()

    def second() -> None:
        with sole_writer(folder, notes.append):
            entered.set()

    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 20
        while not notes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert notes == [f"waiting for another smidgen process that writes into {folder}"]
        assert not entered.wait(0.2)
        first.kill()
        assert entered.wait(20)
        thread.join()
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"), sole_writer(tmp_path / "file", print):
        raise AssertionError
