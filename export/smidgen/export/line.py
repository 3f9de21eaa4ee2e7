"""The export line: one float model in, verified Bundles and ``export.json`` out.

A Bundle gets its final name only when it was judged. One that fails its gate is kept as
``<name>-<scheme>.gate-failed.<format>``; a file of an earlier export under the other name goes.
Files whose inputs did not change are kept as they are, so an interrupted export goes on where it
was. A file that cannot be made or crashes is reported, and the others go on.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smidgen.export.errors import ExportError
from smidgen.export.gate.verdicts import images_needed
from smidgen.export.pictures import hash_of_hashes
from smidgen.export.progress import Progress
from smidgen.export.recipe import ExportRecipe, Format
from smidgen.export.result import ExportedBundle, ExportResult, Failure, is_intact, made_before
from smidgen.export.source import FloatModel
from smidgen.export.versions import toolchain_versions
from smidgen.runtime.errors import OutputError, RuntimeRoomError
from smidgen.runtime.files import output_error, write_bytes
from smidgen.runtime.manifest import Manifest, Provenance, Scheme
from smidgen.runtime.schema import as_mapping
from smidgen.train.lock import sole_writer
from smidgen.train.progress import SilentProgress
from smidgen.train.recipe_toml import dumps

if TYPE_CHECKING:
    from smidgen.export.formats.conversion import Converter
    from smidgen.export.gate.verification import Findings, Verifier

_GENERATION = 1
"""Raised when the same inputs give other files than before, so that old ones are made anew."""


def export(
    source: FloatModel, recipe: ExportRecipe, folder: Path, progress: Progress | None = None
) -> ExportResult:
    """Make and judge the Bundles of ``recipe`` from ``source`` in ``folder``.

    Returns what was made; ``failed`` where a gate did, or a file could not be made. Another process
    that exports into ``folder`` is waited for.

    Raises:
        OutputError: the folder cannot be written to.
        SourceError: the float model cannot be loaded, or an image changed.
        GateError: the float model has no answers to compare with.
    """
    progress = progress or SilentProgress()
    with sole_writer(Path(folder), progress.note):
        return _export(source, recipe, Path(folder), progress)


def _export(
    source: FloatModel, recipe: ExportRecipe, folder: Path, progress: Progress
) -> ExportResult:
    wanted = [(form, scheme) for form in recipe.formats for scheme in recipe.schemes]
    made = _up_to_date(source, recipe, folder)
    for pair in wanted:
        if pair in made:
            progress.note(f"{made[pair].file} is up to date")
    pending = [pair for pair in wanted if pair not in made]
    seconds: dict[str, float] = {}
    failures: list[Failure] = []
    if pending:
        with _workbench(source, recipe, folder, progress, seconds) as bench:
            for pair in pending:
                try:
                    made[pair] = _make(bench, pair)
                except OutputError:
                    raise
                except (ExportError, RuntimeRoomError) as error:
                    _remove(folder, _stem(source, recipe, pair[1]), pair[0])
                    failures.append(Failure(*pair, reason=str(error)))
                    progress.note(f"{pair[1]} .{pair[0]} failed: {error}")
                _result(folder, made, failures, seconds).write()
    asked = {pair: made[pair] for pair in wanted if pair in made}
    return _result(folder, asked, failures, seconds)


@dataclass(frozen=True)
class _Workbench:
    """What one export works with; ``work`` is a folder beside the results that goes afterwards."""

    folder: Path
    work: Path
    converter: Converter
    verifier: Verifier


@contextmanager
def _workbench(
    source: FloatModel,
    recipe: ExportRecipe,
    folder: Path,
    progress: Progress,
    seconds: dict[str, float],
) -> Iterator[_Workbench]:
    from smidgen.export.formats.conversion import Converter
    from smidgen.export.gate.verification import REFERENCE_FILE, Verifier
    from smidgen.export.synthetic import synthetic_pictures

    try:
        for left in folder.glob(".export-*"):  # of an export that was killed
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        converter = Converter(source, recipe, progress, seconds)
        pictures = source.held_out
        if not pictures and not source.calibration_pool:
            pictures = synthetic_pictures(work / "synthetic")
        verifier = Verifier(
            source, recipe, pictures, folder, lambda: converter.model, progress, seconds
        )
        _ = verifier.reference  # before any conversion: without it nothing can be judged
        yield _Workbench(folder, work, converter, verifier)
        (folder / REFERENCE_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _make(bench: _Workbench, pair: tuple[Format, Scheme]) -> ExportedBundle:
    """Convert, pack, judge and name one Bundle. Raises ExportError, RuntimeRoomError."""
    from smidgen.export.formats.pack import pack, with_findings

    form, scheme = pair
    converter = bench.converter
    source, recipe, before = converter.source, converter.recipe, converter.seconds.copy()
    stem = _stem(source, recipe, scheme)
    model = converter.convert(form, scheme)
    bundle, manifest = pack(model, _manifest(converter, model, stem, pair))
    candidate = bench.work / f"{stem}.{form}"
    write_bytes(candidate, bundle)
    findings = bench.verifier.verify(candidate, manifest)
    bundle, manifest = with_findings(bundle, manifest, findings.verdict, findings.golden)
    passed = _passes(findings, recipe)
    final = bench.folder / (f"{stem}.{form}" if passed else f"{stem}.gate-failed.{form}")
    _remove(bench.folder, stem, form)
    write_bytes(final, bundle)
    converter.progress.note(_summary(final, len(bundle), findings, recipe))
    spent = {name: round(s - before.get(name, 0.0), 3) for name, s in converter.seconds.items()}
    return ExportedBundle(
        file=final.name,
        model_format=form,
        scheme=scheme,
        passed=passed,
        verdict=findings.verdict,
        file_bytes=len(bundle),
        file_sha256=hashlib.sha256(bundle).hexdigest(),
        key=_key(source, recipe, form, scheme),
        seconds={name: value for name, value in spent.items() if value > 0},
        folder=str(bench.folder),
    )


def _up_to_date(
    source: FloatModel, recipe: ExportRecipe, folder: Path
) -> dict[tuple[Format, Scheme], ExportedBundle]:
    """What an earlier export made of the same inputs; what it made of others is removed."""
    made = {}
    for bundle in made_before(folder):
        pair = bundle.model_format, bundle.scheme
        if bundle.key == _key(source, recipe, *pair) and is_intact(bundle):
            made[pair] = bundle
        else:
            bundle.path.unlink(missing_ok=True)
    return made


def _result(
    folder: Path,
    made: dict[tuple[Format, Scheme], ExportedBundle],
    failures: list[Failure],
    seconds: dict[str, float],
) -> ExportResult:
    return ExportResult(
        folder, tuple(made.values()), tuple(failures), seconds, toolchain_versions()
    )


def _manifest(
    converter: Converter, model: bytes, stem: str, pair: tuple[Format, Scheme]
) -> Manifest:
    from smidgen.export.formats.conversion import oldest_runtime, tensor_specs

    source, (form, scheme) = converter.source, pair
    image, scores = tensor_specs(source, form, scheme)
    settings = dumps({"export": as_mapping(converter.recipe)})
    used = converter.calibration if scheme == "int8" else None
    now = datetime.datetime.now(datetime.timezone.utc)
    provenance = Provenance(
        created_utc=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        backbone=source.backbone,
        source=source.source,
        recipe_toml=f"{source.recipe_toml.rstrip()}\n\n{settings}".lstrip(),
        weights_sha256=source.weights_sha256,
        data_sha256=source.data_sha256,
        calibration_sha256=used.sha256 if used else "",
        calibration_images=len(used) if used else 0,
        commit=source.commit,
        versions={**source.versions, **toolchain_versions()},
    )
    return Manifest(
        name=stem,
        model_format=form,
        scheme=scheme,
        labels=source.labels,
        preprocessing=source.preprocessing,
        input=image,
        output=scores,
        provenance=provenance,
        payload_sha256="",
        minimum_runtime=oldest_runtime(model, form),
    )


def _passes(findings: Findings, recipe: ExportRecipe) -> bool:
    word = findings.verdict.verdict
    return word == "pass" or (word == "undecided" and recipe.undecided == "warn")


def _summary(path: Path, size: int, findings: Findings, recipe: ExportRecipe) -> str:
    verdict = findings.verdict
    if verdict.truth == "labels":
        answers = (
            f"top-1 {verdict.top1_percent:.2f} % (float model "
            f"{verdict.reference_top1_percent:.2f} %), drop {verdict.drop_points:.2f} points"
        )
    else:  # no labels: the float model's answers are the truth
        answers = (
            f"the float model's answer on {verdict.top1_percent:.2f} %, drop "
            f"{verdict.drop_points:.2f} points"
        )
    line = (
        f"{path.name}: {size / 1e6:.2f} MB, {answers} "
        f"[{verdict.drop_low_points:.2f}, {verdict.drop_high_points:.2f}], "
        f"{verdict.changed_answers} of {verdict.images} answers changed, largest difference of a "
        f"probability {verdict.max_score_difference:.1g}: {verdict.verdict}"
    )
    if verdict.verdict == "undecided":
        needed = images_needed(findings.pairs, recipe.max_drop)
        line += f" (about {needed} images would decide)" if needed else " (drop at the limit)"
    return line


def _stem(source: FloatModel, recipe: ExportRecipe, scheme: Scheme) -> str:
    return f"{recipe.name or source.name}-{scheme}"


def _remove(folder: Path, stem: str, form: Format) -> None:
    for name in (f"{stem}.{form}", f"{stem}.gate-failed.{form}"):
        (folder / name).unlink(missing_ok=True)


def _key(source: FloatModel, recipe: ExportRecipe, form: Format, scheme: Scheme) -> str:
    """SHA-256 over everything that decides one Bundle, its verdict and its name."""
    settings = as_mapping(recipe)
    del settings["formats"], settings["schemes"]
    content = [
        _GENERATION,
        form,
        scheme,
        settings,
        source.name,
        source.weights_sha256,
        list(source.labels),
        as_mapping(source.preprocessing),
        as_mapping(source.normalization),
        [[picture.sha256, picture.label, picture.turn] for picture in source.held_out],
        hash_of_hashes(source.calibration_pool),
        toolchain_versions(),
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8")).hexdigest()
