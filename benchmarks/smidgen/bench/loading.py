"""How fast image files become batches of pixels: our loader beside others, in one run.

    python -m smidgen.bench.loading FOLDER [--image-size 128] [--margin 0] [--rounds 7]

FOLDER holds JPEG files at any depth; ``--images`` of them are taken. The loaders take turns, round
by round in a changing order, after one round that is not counted (files are then in memory, graphs
are built). Printed, in Markdown: the median images/s of each, and how many times as fast our first
pass and our cached batches are as it, with 95 % intervals of the ratios of the rounds.

``--margin`` is what training adds to the image size for crops; the squares of all loaders have the
sum of both. Where the machine does other work, throughputs fall together and the ratios hold, but
with wider intervals.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from smidgen.bench.facts import gather
from smidgen.bench.loaders import (
    CACHED,
    FIRST_PASS,
    STREAMED,
    Images,
    Loader,
    other_loaders,
    our_loaders,
)
from smidgen.bench.measure import turn
from smidgen.bench.origin import source_commit
from smidgen.bench.statistics import Ratio, median_ratio, percentile_ms
from smidgen.runtime.files import sha256_of_file
from smidgen.train.data import Example

Times = dict[str, list[list[int]]]
"""By loader: ns per image, one sample for each round."""

_LEAST_NS = 300_000_000
"""A fast loader goes through the images again until a sample has taken as long."""


@dataclass(frozen=True)
class LoadingRow:
    """One loader: its throughput, and by how much ours is faster."""

    name: str
    images_per_second: float
    first_pass_ratio: Ratio | None
    cached_ratio: Ratio | None


def compare(
    loaders: Sequence[Loader],
    rounds: int,
    progress: Callable[[str], None],
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Times:
    """Let ``loaders`` take turns; ns per image of each, one sample for each of ``rounds``."""
    times: Times = {loader.name: [] for loader in loaders}
    for number in range(-1, rounds):
        for index in turn(len(loaders), max(number, 0), seed=0):
            loader = loaders[index]
            progress(f"round {number + 1}/{rounds}: {loader.name}")
            began, count = clock(), 0
            while count == 0 or clock() - began < _LEAST_NS:
                count += loader.run()
            if number >= 0:
                times[loader.name].append([(clock() - began) // count])
    return times


def rows(times: Times) -> list[LoadingRow]:
    """The slowest loader first; ``times`` must have our first pass and our cache."""
    found = []
    for name, samples in times.items():
        median_ms = percentile_ms(samples, 50) or 0.0
        is_ours = name in (FIRST_PASS, CACHED, STREAMED)
        first = None if is_ours else median_ratio(samples, times[FIRST_PASS])
        cached = None if name == CACHED else median_ratio(samples, times[CACHED])
        found.append(LoadingRow(name, 1e3 / median_ms, first, cached))
    return sorted(found, key=lambda row: row.images_per_second)


def as_markdown(found: Sequence[LoadingRow], head: Sequence[str]) -> str:
    """The table, below ``head``."""
    lines = [
        *(f"{line}  " for line in head),
        "",
        "| loader | images/s | our first pass is x as fast | our cache is x as fast |",
        "|---|---:|---:|---:|",
    ]
    for row in found:
        first, cached = row.first_pass_ratio or "", row.cached_ratio or ""
        lines.append(f"| {row.name} | {row.images_per_second:,.0f} | {first} | {cached} |")
    return "\n".join(lines) + "\n"


def take_images(folder: Path, count: int, side: int) -> Images:
    """``count`` JPEG files of ``folder``, evenly spread over their names."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    count = min(count, len(paths))
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    return Images([Example(str(path), 0, sha256_of_file(path)) for path in chosen], side)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print; 2 where there is nothing to load."""
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.loading",
        description="Compare how fast loaders turn JPEG files into batches of pixels.",
    )
    parser.add_argument("folder", type=Path, help="JPEG files at any depth")
    parser.add_argument("--image-size", type=int, default=128, help="pixels (default 128)")
    parser.add_argument("--margin", type=int, default=0, help="pixels more for crops (default 0)")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--images", type=int, default=1000, help="at most (default 1000)")
    arguments = parser.parse_args(argv)
    side = arguments.image_size + arguments.margin
    images = take_images(arguments.folder, arguments.images, side)
    if not images.examples:
        print(f"{arguments.folder} holds no .jpg or .jpeg file", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="smidgen-loading-") as folder:
        loaders = [*our_loaders(images, Path(folder)), *other_loaders(images)]
        times = compare(loaders, arguments.rounds, lambda line: print(line, file=sys.stderr))
    print(as_markdown(rows(times), _head(images, arguments.rounds)), end="")
    return 0


def _head(images: Images, rounds_count: int) -> list[str]:
    facts = gather()
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return [
        f"{len(images.examples)} JPEG files to {images.side} x {images.side} px, "
        f"{rounds_count} rounds, {now}, commit {source_commit()[:12] or 'unknown'}",
        f"{facts.line()}; load {facts.load_average_1min:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
