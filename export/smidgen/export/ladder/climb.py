"""Climbing the ladder: make the files of a rung, measure them, decide, until one fits."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Protocol

from smidgen.export.ladder.rungs import Abilities, Limits, Rung, Tried, next_rung, pareto, winner
from smidgen.export.progress import Progress
from smidgen.export.recipe import ExportPlan
from smidgen.export.result import ExportResult
from smidgen.runtime.errors import OutputError, SmidgenError
from smidgen.runtime.files import replacing, write_text

LADDER_FOLDER = "ladder"
LADDER_FILE = "ladder.json"
_MOST_RUNGS = 20


class Stopwatch(Protocol):
    """Measures a Bundle on the device that the budget is for."""

    def milliseconds(self, bundle: Path) -> float:
        """Median of one inference, one thread. Raises SmidgenError where it cannot run there."""


@dataclass
class FakeStopwatch:
    """A ``Stopwatch`` for tests: a rate of nanoseconds for each byte of the file."""

    ns_per_byte: float = 1.0

    def milliseconds(self, bundle: Path) -> float:
        """The same for files of the same size."""
        return bundle.stat().st_size * self.ns_per_byte / 1e6


Make = Callable[[ExportPlan, Path], ExportResult]
"""Makes and judges the Bundles of a plan in a folder: ``line.export`` with its source."""


@dataclass(frozen=True)
class Climb:
    """How the search ended. ``final``: where the winner is; None where nothing fits."""

    tried: tuple[Tried, ...]
    best: Optional[Tried]
    final: Optional[Path]
    pareto: tuple[Tried, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Ladder:
    """One search: what is looked for, and with what."""

    limits: Limits
    abilities: Abilities
    make: Make
    stopwatch: Stopwatch
    progress: Progress
    clock: Callable[[], float] = time.monotonic

    def climb(self, base: ExportPlan, folder: Path, stem: str) -> Climb:
        """Try remedies until a file fits; it becomes ``<stem>-best.<format>`` in ``folder``.

        Each rung has a folder of its own below ``ladder/``. What was made and judged before of the
        same inputs is not made again, so a search that was interrupted goes on.

        Raises:
            OutputError: ``folder`` cannot be written to.
            SmidgenError: as ``make``, where nothing at all can be made.
        """
        tried: list[Tried] = []
        while len(tried) < _MOST_RUNGS * len(self.abilities.formats):
            rung = next_rung(base, tried, self.limits, self.abilities)
            if rung is None:
                break
            self.progress.note(f"rung {rung.name}: {rung.why}")
            for item in self._try(rung, folder / LADDER_FOLDER / rung.name):
                tried.append(item)
                self.progress.note(f"rung {rung.name}: {describe(item, self.limits)}")
            _write(folder, tried, self.limits)
        best = winner(tried, self.limits)
        for form in self.abilities.formats:
            (folder / f"{stem}-best.{form}").unlink(missing_ok=True)
        final = None if best is None else _publish(best, folder, stem)
        advice = () if best is not None else advise(tried, self.limits, self.abilities)
        return Climb(tuple(tried), best, final, pareto(tried, self.limits), advice)

    def _try(self, rung: Rung, folder: Path) -> list[Tried]:
        began = self.clock()
        plan = replace(rung.plan, export=replace(rung.plan.export, undecided="warn"))
        try:
            result = self.make(plan, folder)
        except OutputError:
            raise
        except SmidgenError as error:
            return [self._failed(rung, form, str(error)) for form in self.abilities.formats]
        seconds = self.clock() - began
        items = [self._failed(rung, each.model_format, each.reason) for each in result.failures]
        for bundle in result.bundles:
            try:
                took: float | None = self.stopwatch.milliseconds(bundle.path)
                reason = ""
            except SmidgenError as error:
                took, reason = None, str(error)
            items.append(
                Tried(
                    rung=rung,
                    model_format=bundle.model_format,
                    file=bundle.path,
                    file_bytes=bundle.file_bytes,
                    milliseconds=took,
                    word=bundle.verdict.verdict,
                    drop_points=bundle.verdict.drop_points,
                    seconds=seconds,
                    reason=reason,
                )
            )
        return items

    def _failed(self, rung: Rung, form: Any, reason: str) -> Tried:
        return Tried(rung, form, None, 0, None, None, 0.0, 0.0, reason)


def describe(item: Tried, limits: Limits) -> str:
    """One line: what the file costs, what it keeps, and whether that fits."""
    if item.word is None or item.file is None:
        return f".{item.model_format} could not be made: {item.reason}"
    took = "not measured" if item.milliseconds is None else f"{item.milliseconds:.2f} ms"
    fits = "fits" if item.fits(limits) else "does not fit"
    return (
        f"{item.file.name} {item.file_bytes} bytes, {took}, drop {item.drop_points:.2f} points "
        f"({item.word}): {fits}"
    )


def advise(tried: Sequence[Tried], limits: Limits, abilities: Abilities) -> tuple[str, ...]:
    """What to do where nothing fits: a line for each thing that lacked, the nearest file first."""
    made = [item for item in tried if item.word is not None]
    if not made:
        reasons = sorted({item.reason for item in tried if item.reason})
        return ("no file could be made: " + "; ".join(reasons[:2]),)
    near = min(made, key=lambda i: (not i.keeps_accuracy(limits), i.excess(limits)))
    file = near.file.name if near.file else near.rung.name
    lines = [f"nearest: {file}, {describe(near, limits).split(' ', 1)[1]}"]
    if near.excess(limits) > 1:
        lines.append(
            "too big or slow: train with a smaller --image-size (time falls with its square), or a "
            "smaller --backbone, or raise the budget"
        )
    if not near.keeps_accuracy(limits):
        lines.append(
            "too inaccurate: train longer or with more images, learn from a larger Run "
            "(--teachers), or raise --max-drop"
        )
    if any(item.word == "undecided" for item in made):
        lines.append("the held-out images are too few to tell: add test images")
    if not abilities.can_tune:
        lines.append(
            "without training images nothing can be pruned or tuned: export a Run, or --model with "
            "--images"
        )
    return tuple(lines)


def _publish(best: Tried, folder: Path, stem: str) -> Path:
    assert best.file is not None
    final = folder / f"{stem}-best.{best.model_format}"
    with replacing(final) as temporary:
        shutil.copyfile(best.file, temporary)
    return final


def _write(folder: Path, tried: Sequence[Tried], limits: Limits) -> None:
    rows = [
        {
            "rung": item.rung.name,
            "why": item.rung.why,
            "format": item.model_format,
            "file": None if item.file is None else str(item.file.relative_to(folder)),
            "bytes": item.file_bytes,
            "milliseconds": item.milliseconds,
            "verdict": item.word,
            "drop_points": item.drop_points,
            "seconds": round(item.seconds, 1),
            "reason": item.reason,
            "fits": item.fits(limits),
        }
        for item in tried
    ]
    mapping = {"max_ms": limits.max_ms, "max_bytes": limits.max_bytes, "tried": rows}
    write_text(folder / LADDER_FILE, json.dumps(mapping, indent=2, ensure_ascii=False) + "\n")
