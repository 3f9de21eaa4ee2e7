"""Candidates in child processes: their answers, and every way in which they can die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from smidgen.export.errors import CandidateFailed, SourceError
from smidgen.export.gate.judge import Judge, keep_scores, kept_scores
from smidgen.export.pictures import Picture
from smidgen.runtime.errors import OutputError

NOTHING = Path("toy.tflite")


def judge(program: str, **settings) -> Judge:
    return Judge(worker=(sys.executable, "-c", program), **settings)


def failure(program: str, **settings) -> str:
    with pytest.raises(CandidateFailed) as caught:
        judge(program, **settings).answer_pictures(NOTHING, [Picture("a", "0")], lambda _: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_crash_is_named_by_its_signal():
    text = failure("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "toy.tflite crashed its own runtime (SIGSEGV)" in text


def test_a_child_that_was_killed_from_outside_does_not_blame_the_file():
    text = failure("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert "toy.tflite was not judged: its process was ended from outside (SIGKILL)" in text
    assert "not usable" not in text


def test_a_stalled_child_is_stopped():
    text = failure("import time; time.sleep(60)", stall_seconds=0.3)
    assert "gave no answer for 0.3 s" in text


def test_a_refusal_passes_its_last_line_on():
    text = failure("import sys; sys.exit('noise\\nop 77 is unknown')")
    assert text.endswith("failed in its own runtime: op 77 is unknown")


def test_no_answers_and_too_few_answers_are_failures():
    assert "left no answers" in failure("pass")
    program = (
        "import sys, numpy; "
        "numpy.savez(open(sys.argv[3], 'wb'), scores=numpy.zeros((0, 2)), engine='x')"
    )
    assert "answered 0 of 1" in failure(program)


def test_the_real_worker_refuses_what_is_not_a_bundle(tmp_path):
    path = tmp_path / "toy.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(CandidateFailed, match=r"toy\.tflite failed in its own runtime: "):
        Judge().answer_pixels(path, np.zeros((1, 8, 8, 3), np.uint8))


def test_kept_scores_belong_to_their_key(tmp_path):
    path = tmp_path / "reference.npz"
    scores = np.eye(3, dtype=np.float32)
    assert kept_scores(path, "a") is None
    keep_scores(path, "a", scores)
    np.testing.assert_array_equal(kept_scores(path, "a"), scores)
    assert kept_scores(path, "b") is None
    path.write_bytes(path.read_bytes()[:50])
    assert kept_scores(path, "a") is None


def test_a_picture_that_is_gone_is_not_the_files_fault(make_bundle, tmp_path):
    with pytest.raises(SourceError, match=r"^cannot read .*gone\.png") as caught:
        Judge().answer_pictures(
            make_bundle(), [Picture(str(tmp_path / "gone.png"), "0" * 64)], lambda _: None
        )
    assert "\n" not in str(caught.value)


LITTLE_SPACE = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sys.argv = ["worker", *sys.argv[1:]]
runpy.run_module("smidgen.export.gate.judge_worker", run_name="__main__")
"""


def test_no_space_for_the_answers_is_told_as_such(make_bundle):
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(OutputError, match=r"^no space in .* for the answers of tiny-float32\.onnx"):
        judge(LITTLE_SPACE).answer_pixels(make_bundle(), pixels)
    assert len(judge(LITTLE_SPACE.replace("100", "100000")).answer_pixels(
        make_bundle(), pixels
    ).scores) == 1  # fmt: skip


NO_SPACE_AT_ALL = """
import resource
from pathlib import Path
from smidgen.export.gate.judge import Judge
from smidgen.runtime.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))
try:
    Judge().answer_pictures(Path("toy.tflite"), [], lambda _: None)
except OutputError as error:
    print(error)
"""


def test_no_space_for_the_task_is_told_as_such(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NO_SPACE_AT_ALL],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"cannot write {tmp_path}: File too large")
    assert list(tmp_path.iterdir()) == []


PARENT = """
import sys
from pathlib import Path
from smidgen.export.gate.judge import Judge
from smidgen.export.pictures import Picture
try:
    Judge(worker=(sys.executable, sys.argv[1])).answer_pictures(
        Path("toy.tflite"), [Picture("a", "0")] * 999, lambda _: None)
except KeyboardInterrupt:
    sys.exit(130)
"""
CHILD = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
Path(__file__).with_suffix(".pid").write_text(str(os.getpid()))
while True:
    print("done 1", flush=True)
    time.sleep(0.02)
"""


def started(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A process that judges with a child which ignores Ctrl-C; and the child's id."""
    script = folder / "child.py"
    script.write_text(CHILD)
    temporary = folder / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(script)],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pid = folder / "child.pid"
        if pid.exists() and pid.read_text():
            return process, int(pid.read_text())
        time.sleep(0.02)
    raise AssertionError("the child did not start")


def is_gone(pid: int) -> bool:
    """Whether the process ends within ten seconds; one that is dead but not reaped has."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_ctrl_c_ends_the_child_and_leaves_nothing_behind(tmp_path):
    process, child = started(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert process.communicate()[1] == ""
    assert is_gone(child)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_child_does_not_outlive_a_killed_parent(tmp_path):
    process, child = started(tmp_path)
    process.kill()
    process.communicate()
    assert is_gone(child)
