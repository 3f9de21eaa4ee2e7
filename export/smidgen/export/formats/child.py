"""A process of its own for what runs a model file: a bad file can kill an interpreter."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from smidgen.export.errors import CandidateFailed


def run_child(command: Sequence[str], what: str, *, timeout_seconds: float, engine: str) -> str:
    """What ``command`` printed on stdout.

    Args:
        command: the program and its arguments.
        what: the file, for messages: ``the .onnx file int8``.
        timeout_seconds: when it is stopped.
        engine: what runs the file, for messages: ``ONNX Runtime``.

    Raises:
        CandidateFailed: it gave no answer in time, or ended with another status than 0.
    """
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CandidateFailed(
            f"{what} gave no answer for {timeout_seconds:g} s and was stopped: the file is not "
            "usable"
        ) from error
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or [""])[-1]
        raise CandidateFailed(
            f"{what} failed in {engine} (exit status {ended.returncode}; {last[:300]}): the file "
            "is not usable"
        )
    return ended.stdout
