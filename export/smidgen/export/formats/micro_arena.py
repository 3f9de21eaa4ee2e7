"""How much RAM tflite-micro needs for a model, found by running it in ever smaller arenas."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from smidgen.export.errors import CandidateFailed, ConversionError

WORKER = (sys.executable, "-P", "-m", "smidgen.export.formats.micro_arena_worker")
STALL_SECONDS = 300.0


def arena_bytes(
    model: bytes, worker: tuple[str, ...] = WORKER, stall_seconds: float = STALL_SECONDS
) -> int:
    """The smallest tensor arena, in steps of 16 bytes, in which tflite-micro answers one input.

    Measured on this machine, whose pointers have 64 bits: a 32-bit microcontroller with the same
    kernels needs less; optimised kernels (CMSIS-NN and others) may need more scratch memory.
    ``worker`` is the command of the child, which a bad file may kill.

    Args:
        model: a ``.tflite`` file or Bundle.
        worker: command that gets a file's path and prints ``arena N``.
        stall_seconds: the child is killed after that.

    Raises:
        ConversionError: tflite-micro is not installed.
        CandidateFailed: it refused the file, died, or hung.
    """
    if find_spec("tflite_micro") is None:
        raise ConversionError(
            "tflite-micro is not installed, which measures the RAM of a microcontroller: "
            "pip install tflite-micro"
        )
    with tempfile.TemporaryDirectory(prefix="smidgen-arena-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(model)
        try:
            done = subprocess.run(
                [*worker, str(path)],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=stall_seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise CandidateFailed(
                f"tflite-micro gave no answer for {stall_seconds:g} s: the file is not usable there"
            ) from error
    found = [line for line in done.stdout.splitlines() if line.startswith("arena ")]
    if done.returncode != 0 or not found:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1][:200] if said else f"exit status {done.returncode}"
        raise CandidateFailed(
            f"tflite-micro refused the file or died of it ({reason}): export int8, and see "
            "`--for tflite-micro`"
        )
    return int(found[-1].split()[1])
