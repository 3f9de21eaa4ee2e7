"""The contest's table: its columns and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smidgen.bench.quantization.contest import Row, best_rival
from smidgen.bench.quantization.fidelity import Fidelity, ratio_of_differences
from smidgen.bench.quantization.text_table import Table


def fidelity_table(rows: Sequence[Row]) -> Table:
    """The contest's table, in the order of ``rows``."""
    rival = best_rival(rows)
    best = rival.fidelity if rival else None
    columns: tuple[tuple[str, Callable[[Row, Fidelity], str]], ...] = (
        ("answers kept, %", lambda _, found: _kept(found)),
        ("logit difference, mean", lambda _, found: f"{found.mean_difference:.4f}"),
        ("x best rival's", lambda row, found: "1" if row is rival else _ratio(found, best)),
        ("largest", lambda _, found: f"{found.largest_difference:.2f}"),
        ("top-1, %", lambda _, found: f"{found.top1.percent:.2f}" if found.top1 else "-"),
        ("drop, points", lambda _, found: _drop(found)),
        ("bytes", lambda row, _: f"{row.file_bytes:,}"),
        ("s", lambda row, _: f"{row.seconds:.1f}"),
    )
    return Table(
        ("int8 file of", *(heading for heading, _ in columns)),
        tuple(
            (row.name, *(cell(row, row.fidelity) if row.fidelity else "-" for _, cell in columns))
            for row in rows
        ),
    )


def fidelity_notes(rows: Sequence[Row]) -> list[str]:
    """What the columns mean, and which contender failed, a line each."""
    rival = best_rival(rows)
    versions = {name: value for row in rows for name, value in row.versions.items()}
    named = ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))
    return [
        "answers kept: share of the images with the float model's answer [Wilson 95 % interval];",
        "logit difference: mean over images and classes of |float logit - int8 logit|, and the",
        f"largest; x best rival's: its ratio to that of {rival.name if rival else 'nobody'} "
        "[95 %, bootstrap over images];",
        "drop: points of top-1 by label lost against the float model [the gate's 95 % interval];",
        "s: seconds from the float model to the int8 file, imports apart.",
        *([f"Made with {named}."] if named else []),
        *(f"FAILED {row.name}: {row.failure}" for row in rows if row.failure),
    ]


def _kept(found: Fidelity) -> str:
    kept = found.kept
    share = 100 * kept.hits / kept.total
    return f"{share:.2f} [{100 * kept.low:.1f}, {100 * kept.high:.1f}]"


def _ratio(found: Fidelity, best: Fidelity | None) -> str:
    if best is None:
        return "-"
    ratio = ratio_of_differences(found, best)
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _drop(found: Fidelity) -> str:
    top1 = found.top1
    if top1 is None:
        return "-"
    return f"{top1.drop_points:.2f} [{top1.drop_low_points:.2f}, {top1.drop_high_points:.2f}]"
