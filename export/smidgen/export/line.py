"""The export line: one float model in, verified Bundles and ``export.json`` out.

A Bundle gets its final name only when it was judged. One that fails its gate is kept as
``<name>-<scheme>.gate-failed.<format>``; a file of an earlier export under the other name goes.
Files whose inputs did not change are kept as they are, so an interrupted export goes on where it
was. A file that cannot be made or crashes is reported, and the others go on.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smidgen.export.bundles import Wanted, manifest_of, summary
from smidgen.export.compression import PASSES_FOLDER
from smidgen.export.errors import ExportError, TargetError
from smidgen.export.keys import bundle_key
from smidgen.export.progress import Progress, stage
from smidgen.export.recipe import ExportPlan, Format
from smidgen.export.result import ExportedBundle, ExportResult, Failure, is_intact, made_before
from smidgen.export.seeing.model_card_file import write_model_card
from smidgen.export.source import FloatModel
from smidgen.export.versions import toolchain_versions
from smidgen.runtime.errors import OutputError, RuntimeRoomError
from smidgen.runtime.files import output_error, write_bytes
from smidgen.runtime.manifest import Scheme, Verdict
from smidgen.train.errors import TrainError
from smidgen.train.lock import sole_writer
from smidgen.train.progress import SilentProgress

if TYPE_CHECKING:
    from smidgen.export.decider import Decider
    from smidgen.export.formats.conversion import Converter
    from smidgen.export.gate.verification import Verifier

Pair = tuple[Format, Scheme]


def export(
    source: FloatModel,
    plan: ExportPlan,
    folder: Path,
    progress: Progress | None = None,
    passes: Path | None = None,
) -> ExportResult:
    """Make and judge the Bundles of ``plan`` from ``source`` in ``folder``.

    Returns what was made; ``failed`` where a gate did, or a file could not be made. Another process
    that exports into ``folder`` is waited for. ``passes``: where pruned and clustered networks are
    kept (None: ``passes/`` in ``folder``); exports of one float model may share it.

    Raises:
        OutputError: the folder cannot be written to.
        SourceError: the float model cannot be loaded, or an image changed.
        GateError: the float model has no answers to compare with.
        DecisionError: an accuracy of answers is asked for that the validation images cannot prove.
        CalibrationError: a validation image is held out for the gate.
        TargetError: no such target, or no file is made for it.
    """
    progress = progress or SilentProgress()
    order = _Order(source, plan, Path(folder), passes or Path(folder) / PASSES_FOLDER, progress)
    with sole_writer(order.folder, progress.note):
        return _export(order)


@dataclass(frozen=True)
class _Order:
    """The arguments of ``export``."""

    source: FloatModel
    plan: ExportPlan
    folder: Path
    passes: Path
    progress: Progress

    def wanted(self, pair: Pair) -> Wanted:
        return Wanted(self.source, self.plan, *pair)


def _export(order: _Order) -> ExportResult:
    asked = [
        (form, scheme) for form in order.plan.export.formats for scheme in order.plan.export.schemes
    ]
    made = _up_to_date(order)
    for pair in asked:
        if pair in made:
            order.progress.note(f"{made[pair].file} is up to date")
    pending = [pair for pair in asked if pair not in made]
    if pending and order.plan.export.targets:
        _check_targets(order.plan)
    seconds: dict[str, float] = {}
    failures: list[Failure] = []
    if pending:
        with _workbench(order, seconds) as bench:
            for pair in pending:
                try:
                    made[pair] = _make(bench, pair)
                except OutputError:
                    raise
                except (ExportError, RuntimeRoomError, TrainError) as error:
                    _remove(order, pair)
                    failures.append(Failure(*pair, reason=str(error)))
                    order.progress.note(f"{pair[1]} .{pair[0]} failed: {error}")
                _result(order.folder, made, failures, seconds).write()
    result = _result(order.folder, {p: made[p] for p in asked if p in made}, failures, seconds)
    if pending:
        write_model_card(order.folder, result, order.source.run)
    return result


def _check_targets(plan: ExportPlan) -> None:
    """Raise TargetError for a target that is not known, or that no file is made for."""
    from smidgen.export.formats.runtimes import parse_target

    for target in map(parse_target, plan.export.targets):
        if target.model_format not in plan.export.formats:
            raise TargetError(
                f"target {target} runs .{target.model_format} files and only "
                f"{', '.join(plan.export.formats)} is exported: add --formats {target.model_format}"
            )


@dataclass(frozen=True)
class _Workbench:
    """What one export works with; ``work`` is a folder beside the results that goes afterwards."""

    order: _Order
    work: Path
    converter: Converter
    verifier: Verifier
    decider: Decider


@contextmanager
def _workbench(order: _Order, seconds: dict[str, float]) -> Iterator[_Workbench]:
    from smidgen.export.decider import Decider
    from smidgen.export.formats.conversion import Converter
    from smidgen.export.gate.verification import REFERENCE_FILE, Verifier
    from smidgen.export.synthetic import synthetic_pictures

    source, folder = order.source, order.folder
    decider = Decider(source, order.plan.decisions, order.progress, seconds)
    decider.check()
    try:
        for left in folder.glob(".export-*"):  # of an export that was killed
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        converter = Converter(source, order.plan, order.passes, order.progress, seconds)
        pictures = source.held_out
        if not pictures and not source.calibration_pool:
            pictures = synthetic_pictures(work / "synthetic")
        verifier = Verifier(
            source, order.plan.export, pictures, folder,
            lambda: converter.model, order.progress, seconds,
            changed=(lambda: converter.compressed.network) if order.plan.changes_network else None,
        )  # fmt: skip
        _ = verifier.reference  # before any conversion: without it nothing can be judged
        yield _Workbench(order, work, converter, verifier, decider)
        (folder / REFERENCE_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _make(bench: _Workbench, pair: Pair) -> ExportedBundle:
    """Convert, pack, judge and name one Bundle. Raises ExportError, TrainError and others."""
    from smidgen.export.checks import check_onnx, write_c_header
    from smidgen.export.formats.compressed import gzip_bytes
    from smidgen.export.formats.pack import pack, with_findings
    from smidgen.export.formats.runtimes import parse_target, require_target

    converter, order, wanted = bench.converter, bench.order, bench.order.wanted(pair)
    before = converter.seconds.copy()
    converted = converter.convert(*pair)
    for target in map(parse_target, order.plan.export.targets):
        if target.model_format == wanted.model_format:
            require_target(converted.data, wanted.model_format, target)
    with stage(order.progress, f"check {pair[1]} .{pair[0]}", converter.seconds):
        facts = converted.facts | check_onnx(converter, converted, wanted, bench.verifier.pictures)
    bundle, manifest = pack(converted.data, manifest_of(wanted, converted))
    candidate = bench.work / f"{wanted.stem}.{wanted.model_format}"
    write_bytes(candidate, bundle)
    decided = bench.decider.decide(candidate, manifest)
    manifest = replace(
        manifest, temperature=decided.temperature, abstain_below=decided.abstain_below
    )
    findings = bench.verifier.verify(candidate, manifest)
    facts |= decided.facts | findings.facts
    bundle, manifest = with_findings(bundle, manifest, findings.verdict, findings.golden)
    passed = _passes(findings.verdict, order.plan)
    final = order.folder / wanted.file(passed=passed)
    _remove(order, pair)
    write_bytes(final, bundle)
    if pair == ("tflite", "int8") and order.plan.export.c_header and passed:
        facts |= write_c_header(bundle, manifest, order.folder / f"{wanted.stem}.h")
    order.progress.note(summary(final, len(bundle), manifest))
    spent = {name: round(s - before.get(name, 0.0), 3) for name, s in converter.seconds.items()}
    return ExportedBundle(
        file=final.name,
        model_format=wanted.model_format,
        scheme=wanted.scheme,
        passed=passed,
        verdict=findings.verdict,
        file_bytes=len(bundle),
        gzip_bytes=gzip_bytes(bundle),
        file_sha256=hashlib.sha256(bundle).hexdigest(),
        key=bundle_key(order.source, order.plan, *pair),
        facts=facts,
        seconds={name: value for name, value in spent.items() if value > 0},
        folder=str(order.folder),
    )


def _up_to_date(order: _Order) -> dict[Pair, ExportedBundle]:
    """What an earlier export made of the same inputs; what it made of others is removed."""
    key = partial(bundle_key, order.source, order.plan)
    made = {}
    for bundle in made_before(order.folder):
        pair = bundle.model_format, bundle.scheme
        if bundle.key == key(*pair) and is_intact(bundle):
            made[pair] = bundle
        else:
            bundle.path.unlink(missing_ok=True)
    return made


def _result(
    folder: Path,
    made: dict[Pair, ExportedBundle],
    failures: list[Failure],
    seconds: dict[str, float],
) -> ExportResult:
    return ExportResult(
        folder, tuple(made.values()), tuple(failures), seconds, toolchain_versions()
    )


def _passes(verdict: Verdict, plan: ExportPlan) -> bool:
    word = verdict.verdict
    return word == "pass" or (word == "undecided" and plan.export.undecided == "warn")


def _remove(order: _Order, pair: Pair) -> None:
    for passed in (True, False):
        (order.folder / order.wanted(pair).file(passed=passed)).unlink(missing_ok=True)
    if pair == ("tflite", "int8"):
        (order.folder / f"{order.wanted(pair).stem}.h").unlink(missing_ok=True)
