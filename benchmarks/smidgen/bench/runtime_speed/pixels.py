"""How much sooner a JPEG becomes pixels than by the reference, and how far the two differ.

    python -m smidgen.bench.runtime_speed.pixels FILE... [--side 224] [--rounds 9]

Both ways of ``fast_pixels.load`` take turns, round by round in a changing order, after one round
that is not counted. Printed, in Markdown: the medians, how many times as fast the fast way is (95 %
interval of the ratios of the rounds), and the mean and the largest difference of 255 levels. CPU
time of this process is measured, so that other work on the machine weighs less.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from smidgen.bench.measure import turn
from smidgen.bench.statistics import median_ratio, percentile_ms
from smidgen.runtime import fast_pixels
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.manifest import Preprocessing

WAYS: tuple[Literal["auto", "reference"], ...] = ("auto", "reference")


def row(path: Path, side: int, rounds: int) -> str:
    """One line of the table for one file."""
    data, way = path.read_bytes(), Preprocessing(side, side)
    times: dict[str, list[list[int]]] = {name: [] for name in WAYS}
    for number in range(-1, rounds):
        for index in turn(len(WAYS), max(number, 0), seed=0):
            began = time.process_time_ns()
            fast_pixels.load(data, way, decoder=WAYS[index])
            if number >= 0:
                times[WAYS[index]].append([time.process_time_ns() - began])
    found, expected = (fast_pixels.load(data, way, decoder=name).astype(int) for name in WAYS)
    difference = np.abs(found - expected)
    fast, slow = (percentile_ms(times[name], 50) or 0.0 for name in WAYS)
    ratio = median_ratio(times["reference"], times["auto"])
    return (
        f"| {path.name} | {slow:.1f} | {fast:.1f} | {ratio} | {difference.mean():.2f} | "
        f"{difference.max()} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print; 1 where a file cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.runtime_speed.pixels",
        description="Compare fast decoding of JPEG files with the reference.",
    )
    parser.add_argument("files", type=Path, nargs="+", help="JPEG files")
    parser.add_argument("--side", type=int, default=224, help="of the result (default 224)")
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds (default 9)")
    arguments = parser.parse_args(argv)
    print("| file | reference ms | fast ms | x as fast | mean difference | largest |")
    print("|---|---:|---:|---:|---:|---:|")
    status = 0
    for path in arguments.files:
        try:
            print(row(path, arguments.side, arguments.rounds), flush=True)
        except (SmidgenError, OSError) as error:
            print(error, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
