"""Candidates in child processes: their answers, and every way in which they can die."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from smidgen.export.errors import CandidateFailed
from smidgen.export.gate.judge import Judge, keep_scores, kept_scores
from smidgen.export.pictures import Picture

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
