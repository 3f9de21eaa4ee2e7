"""Finds a model's smallest arena: ``python -m smidgen.export.formats.micro_arena_worker MODEL``.

Prints ``arena N`` (bytes); on failure the reason is the last line on stderr, and the exit status 1.
tflite-micro reports on file descriptor 2, so that is where this reads what it said.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

_FIRST = 1 << 20
_LARGEST = 1 << 28
_STEP = 16


def smallest(fits: Callable[[int], bool]) -> int:
    """The smallest multiple of 16 that ``fits`` (which is monotone); 0: not even 256 MiB does."""
    high = _FIRST
    while not fits(high):
        high *= 2
        if high > _LARGEST:
            return 0
    low = 0  # does not fit
    while high - low > _STEP:
        middle = (low + high) // 2 // _STEP * _STEP
        if middle <= low:
            break
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def answers(model: bytes, arena: int) -> bool:
    """Whether tflite-micro allocates and runs ``model`` in ``arena`` bytes."""
    runtime = importlib.import_module("tflite_micro.python.tflite_micro.runtime")
    try:
        interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena)
        details = interpreter.get_input_details(0)
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
        interpreter.invoke()
    except RuntimeError:
        return False
    return True


def main(path: str) -> int:
    """Exit status: 0 found, 1 no arena was large enough."""
    model = Path(path).read_bytes()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        arena = smallest(lambda size: answers(model, size))
        os.dup2(kept, 2)
        said.seek(0)
        first = said.readline().decode("utf-8", "replace").strip()
    if arena:
        print(f"arena {arena}", flush=True)
        return 0
    print(first or f"no answer in {_LARGEST} bytes", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
