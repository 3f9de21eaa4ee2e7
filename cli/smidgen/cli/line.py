"""The line of ``smidgen run``: which stages run, which are done, and what is said of a failure.

``stages.json`` in the Run folder keeps, for each stage that was completed, a hash of everything
that decides its result (its part of the recipe, and the files it starts from). A stage is done when
that hash is the same and its files are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from smidgen.cli import layout
from smidgen.cli.recipe_file import EXPORT_TABLES, TRAIN_TABLES, LineRecipe
from smidgen.cli.stages import StageRunner
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.files import sha256_of_file, write_text
from smidgen.runtime.schema import as_mapping
from smidgen.train.run import Run

Stage = Literal["train", "export", "bench"]

_REPORTS = (layout.REPORT_TEXT, layout.REPORT_MARKDOWN, layout.REPORT_JSON)


@dataclass(frozen=True)
class Outcome:
    """How one stage ended. ``was_done``: an earlier call completed it, with this status."""

    stage: Stage
    status: int
    seconds: float
    was_done: bool


@dataclass(frozen=True)
class LineResult:
    """What ``smidgen run`` has to show. ``complaints`` are the lines for what failed."""

    outcomes: tuple[Outcome, ...]
    files: tuple[Path, ...]
    best_bundle: Path | None
    picture: Path | None
    complaints: tuple[str, ...]

    @property
    def status(self) -> int:
        """0, or the status of the first stage that did not end well."""
        return next((o.status for o in self.outcomes if o.status != 0), 0)

    @property
    def bench_is_done(self) -> bool:
        """Whether there is a report to show."""
        return any(path.name == layout.REPORT_TEXT for path in self.files)


def run_line(
    recipe: LineRecipe,
    run: Path,
    *,
    runner: StageRunner,
    progress: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> LineResult:
    """Run what is not done yet of train, export and bench.

    A failure of train, or an export without any Bundle, ends the line. A Bundle that failed its
    gate does not: what exists is measured, and the status says that something failed.

    Raises:
        KeyboardInterrupt: with the line to show, when a stage was interrupted.
        RunMismatch: the folder holds a Run of another recipe.
        OutputError: the Run folder cannot be written.
    """
    Run(run).check_recipe(recipe.train)  # before anything in the folder is overwritten
    write_text(run / layout.RECIPE, recipe.to_toml())
    line = _Line(recipe, run, runner, progress, clock)
    outcomes = [line.stage("train")]
    if outcomes[0].status == 0:
        outcomes.append(line.stage("export"))
        if _bundles(recipe, run):
            outcomes.append(line.stage("bench"))
    return LineResult(
        outcomes=tuple(outcomes),
        files=_files(recipe, run) if outcomes[-1].stage == "bench" else (),
        best_bundle=_best(run),
        picture=_a_picture(run),
        complaints=_complaints(outcomes, recipe, run),
    )


class _Line:
    """One call of ``run_line``: its arguments, and the stage that they all serve."""

    def __init__(
        self,
        recipe: LineRecipe,
        run: Path,
        runner: StageRunner,
        progress: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._recipe, self._run, self._runner = recipe, run, runner
        self._progress, self._clock = progress, clock

    def stage(self, name: Stage) -> Outcome:
        """Run a stage, or find that it is done."""
        inputs = _inputs(name, self._recipe, self._run)
        records = _read_records(self._run)
        record = records.get(name, {})
        if record.get("inputs") == inputs and _outputs_exist(name, self._recipe, self._run):
            self._progress(f"{name}: done before, in {record['seconds']:.0f} s")
            return Outcome(name, 0, float(record["seconds"]), was_done=True)
        if name == "bench":
            _remove_reports(self._run / layout.BENCH)
        self._progress(f"{name}: begins")
        began = self._clock()
        status = self._run_child(name)
        seconds = round(self._clock() - began, 1)
        if status == 0:
            records[name] = {"inputs": inputs, "seconds": seconds}
            write_text(self._run / layout.STAGES, json.dumps(records, indent=2) + "\n")
        return Outcome(name, status, seconds, was_done=False)

    def _run_child(self, name: Stage) -> int:
        """The exit status of the child, always 0 or above."""
        message = f"interrupted during {name}; run the same command again to go on"
        try:
            status = self._runner.run(_argv(name, self._recipe, self._run))
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(message) from error
        if status in (130, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt(message)
        if status < 0:
            self._progress(f"{name} was killed by {_signal_name(-status)}{_likely(-status)}")
            return 1
        return status


def _remove_reports(bench: Path) -> None:
    """The table of other Bundles must not be shown where measuring these ones fails."""
    for name in _REPORTS:
        with contextlib.suppress(FileNotFoundError):
            (bench / name).unlink()


def _argv(name: Stage, recipe: LineRecipe, run: Path) -> list[str]:
    """The command line of the stage, without the program."""
    file = str(run / layout.RECIPE)
    if name == "train":
        return ["train", file, "--out", str(run)]
    if name == "export":
        return ["export", str(run), "--recipe", file, "--out", str(run / layout.BUNDLES)]
    bundles = [str(path) for path in _bundles(recipe, run)]
    return ["bench", *bundles, "--recipe", file, "--out", str(run / layout.BENCH)]


def _bundles(recipe: LineRecipe, run: Path) -> tuple[Path, ...]:
    """The Bundles of this recipe that exist."""
    stem = recipe.export.name or run.resolve().name
    settings = recipe.export
    if recipe.budget.is_set:
        return layout.best_of_ladder(run / layout.BUNDLES, stem, settings.formats)
    return layout.exported(run / layout.BUNDLES, stem, settings.formats, settings.schemes)


def _inputs(name: Stage, recipe: LineRecipe, run: Path) -> str:
    """SHA-256 of everything that decides what the stage makes."""
    tables = as_mapping(recipe)
    decisive: dict[Stage, Callable[[], Any]] = {
        "train": lambda: [[tables[t] for t in TRAIN_TABLES], _listing(Path(recipe.data.folder))],
        "export": lambda: [
            [tables[t] for t in EXPORT_TABLES],
            sha256_of_file(run / layout.MODEL),
        ],
        "bench": lambda: [tables["bench"], _hashes(_bundles(recipe, run))],
    }
    text = json.dumps(decisive[name](), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()


def _listing(folder: Path) -> list[tuple[str, int]]:
    """Every file below the folder with its size: changes when images come, go or are edited."""
    files: list[tuple[str, int]] = []
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(place, name)
            try:
                files.append((str(path.relative_to(folder)), path.stat().st_size))
            except OSError:
                files.append((str(path.relative_to(folder)), -1))
    return sorted(files)


def _hashes(files: Sequence[Path]) -> list[tuple[str, str]]:
    return [(path.name, sha256_of_file(path)) for path in files]


def _outputs_exist(name: Stage, recipe: LineRecipe, run: Path) -> bool:
    if name == "train":
        return (run / layout.MODEL).is_file()
    if name == "export":
        return len(_bundles(recipe, run)) == _wanted(recipe)
    return (run / layout.BENCH / layout.REPORT_TEXT).is_file()


def _wanted(recipe: LineRecipe) -> int:
    """How many Bundles the recipe asks for; one within a budget."""
    if recipe.budget.is_set:
        return 1
    return len(recipe.export.formats) * len(recipe.export.schemes)


def _complaints(outcomes: Sequence[Outcome], recipe: LineRecipe, run: Path) -> tuple[str, ...]:
    """One line for each thing that made the status nonzero; the stages' own lines came before."""
    lines: list[str] = []
    for outcome in outcomes:
        if outcome.status == 0:
            continue
        if outcome.stage != "export":
            lines.append(f"{outcome.stage} failed with exit status {outcome.status}")
            continue
        bundles = _bundles(recipe, run)
        lines += [_gate_line(path) for path in bundles if layout.GATE_FAILED in path.name]
        if len(bundles) < _wanted(recipe):
            lines.append(f"export made {len(bundles)} of {_wanted(recipe)} files")
        if not lines:
            lines.append(f"export failed with exit status {outcome.status}")
    return tuple(lines)


def _gate_line(path: Path) -> str:
    """Which Bundle failed, and by how much."""
    try:
        verdict = Bundle.open(path).manifest.verdict
    except SmidgenError as error:
        return f"gate failed: {error}"
    if verdict is None:
        return f"gate not run: {path}"
    return (
        f"gate failed ({verdict.verdict}): {path} loses {verdict.drop_points:.2f} points of top-1 "
        f"[{verdict.drop_low_points:.2f}, {verdict.drop_high_points:.2f}] on {verdict.images} "
        f"images; allowed: {verdict.max_drop_points:g}"
    )


def _best(run: Path) -> Path | None:
    try:
        return layout.best_bundle(str(run))
    except SmidgenError:
        return None


def _files(recipe: LineRecipe, run: Path) -> tuple[Path, ...]:
    """The files that the line made for its user, Bundles first."""
    bench = run / layout.BENCH
    others = [bench / name for name in (*_REPORTS, layout.JOURNAL)]
    others += [run / layout.MODEL, run / "metrics.jsonl", run / "curves.png", run / layout.RECIPE]
    present = tuple(path for path in others if path.is_file())
    return (*_bundles(recipe, run), *present)


def _a_picture(run: Path) -> Path | None:
    """One picture of the test split to try the model on, as short as it can be written."""
    try:
        test = Run(run).dataset().test
    except SmidgenError:
        return None
    if not test:
        return None
    picture, here = Path(test[-1].path), Path.cwd()
    return picture.relative_to(here) if picture.is_relative_to(here) else picture


def _read_records(run: Path) -> dict[str, dict[str, Any]]:
    """What was completed before; nothing where the file is not there or is not ours."""
    try:
        records = json.loads((run / layout.STAGES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return records if isinstance(records, dict) else {}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _likely(number: int) -> str:
    return " (usually: out of memory; try a smaller --batch-size)" if number == 9 else ""
