"""From the samples of a contest to the tables of images/s."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smidgen.bench.statistics import Ratio, median_ratio, percentile_ms
from smidgen.bench.training.contest import Contest
from smidgen.bench.training.setting import Setting, Source, Stage

TITLES: dict[tuple[Stage, Source], str] = {
    ("full", "batch"): "All layers learn, one batch again and again",
    ("full", "files"): "All layers learn, with the input pipeline",
    ("head", "batch"): "Head only, one batch again and again",
    ("head", "files"): "Head only, with the input pipeline",
}


@dataclass(frozen=True)
class SpeedRow:
    """One contender: its throughput, and how many times as fast the reference is."""

    name: str
    images_per_second: float
    ratio: Ratio | None
    first_step_s: float


def rows(contest: Contest, reference: str) -> list[SpeedRow]:
    """The slowest contender first; no ratios where ``reference`` was left out."""
    samples = {
        name: [[sample.ns_per_image] for sample in taken] for name, taken in contest.samples.items()
    }
    ours = samples.get(reference, [])
    found = [
        SpeedRow(
            name,
            1e3 / (percentile_ms(taken, 50) or float("inf")),
            None if name == reference else median_ratio(taken, ours),
            contest.first_step_s[name],
        )
        for name, taken in samples.items()
    ]
    return sorted(found, key=lambda row: row.images_per_second)


def as_markdown(found: Sequence[SpeedRow], title: str, reference: str) -> str:
    """One table."""
    lines = [
        f"### {title}",
        "",
        f"| training | images/s | {reference} is x as fast | first step, s |",
        "|---|---:|---:|---:|",
    ]
    for row in found:
        lines.append(
            f"| {row.name} | {row.images_per_second:,.1f} | {row.ratio or ''} "
            f"| {row.first_step_s:.2f} |"
        )
    return "\n".join(lines) + "\n"


def busiest_wait(contest: Contest) -> float:
    """The largest share of a core that a contender used while it waited for its turn."""
    shares = []
    for taken in contest.samples.values():
        waited_s = sum(sample.waited_s for sample in taken)
        worked_s = sum(sample.waited_cpu_s for sample in taken)
        shares.append(worked_s / waited_s if waited_s > 0 else 0.0)
    return max(shares, default=0.0)


def as_mapping(contest: Contest, setting: Setting) -> dict[str, Any]:
    """All that was measured, for a JSON file."""
    return {"setting": dataclasses.asdict(setting), **dataclasses.asdict(contest)}
