"""Bundles of one task side by side: bytes, zipped bytes, time, and what they lose of top-1.

    python -m smidgen.bench.quantization.table BUNDLE... (--images FOLDER | --run RUN)
        [--costs-of BUNDLE] [--max-drop 0.3 1.0 ...] [--rounds 7] [--markdown FILE] [--json FILE]

The first Bundle is the one that answers are compared with: the float model. ``--costs-of`` names
the one whose bytes and time are 100 %, such as the plain int8 file (default: the first).
``--images`` holds a folder of images for each label of the first Bundle's manifest; they must not
have been trained on. ``--run`` takes the test split of a Run instead. ``--max-drop`` is one allowed
drop in points for all, or one for each Bundle but the first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from smidgen.bench.device import Device
from smidgen.bench.errors import NothingToMeasure
from smidgen.bench.facts import gather
from smidgen.bench.local import LocalDevice
from smidgen.bench.measure import Sweep, measure
from smidgen.bench.origin import source_commit
from smidgen.bench.quantization.bundle_rows import (
    BundleRow,
    Observed,
    notes_of,
    rows_of,
    table_of,
)
from smidgen.bench.recipe import BenchRecipe
from smidgen.export.errors import CandidateFailed
from smidgen.export.formats.compressed import gzip_bytes
from smidgen.export.gate.judge import Judge
from smidgen.export.gate.verdicts import JudgedImages
from smidgen.export.pictures import Picture, scan_unlabelled
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.files import write_text


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print; 1 where anything failed or a verdict is "fail"."""
    arguments = _parser().parse_args(argv)
    try:
        rows = _rows(arguments)
        baseline = _cost_baseline(arguments)
        head, table, notes = _head(arguments), table_of(rows), notes_of(rows, baseline)
        sys.stdout.write("\n".join([*head, "", table.as_text(), *notes]) + "\n")
        if arguments.markdown is not None:
            lines = [f"{line}  " for line in head]
            text = "\n".join([*lines, "", table.as_markdown(), *notes]) + "\n"
            write_text(arguments.markdown, text)
        if arguments.json is not None:
            raw = {"head": head, "rows": [dataclasses.asdict(row) for row in rows]}
            write_text(arguments.json, json.dumps(raw, indent=1) + "\n")
    except SmidgenError as error:
        print(error, file=sys.stderr)
        return 1
    failed = [row for row in rows if row.failures or _fails(row)]
    return 1 if failed else 0


def labelled(folder: Path, labels: Sequence[str]) -> list[Picture]:
    """The images in the folders of ``folder`` that are named like ``labels``, by content hash.

    Raises:
        NothingToMeasure: a label without a folder, or one content under two labels.
        SourceError: a folder without images.
    """
    found: dict[str, Picture] = {}
    for index, label in enumerate(labels):
        if not (folder / label).is_dir():
            raise NothingToMeasure(
                f"{folder} has no folder {label!r}: expected one for each of the Bundle's labels"
            )
        for picture in scan_unlabelled(folder / label):
            if picture.sha256 in found:
                raise NothingToMeasure(
                    f"{picture.path} and {found[picture.sha256].path} are the same image under two "
                    "labels: remove one"
                )
            found[picture.sha256] = dataclasses.replace(picture, label=index)
    return [found[digest] for digest in sorted(found)]


def observe(
    bundles: Sequence[Path],
    pictures: Sequence[Picture],
    recipe: BenchRecipe,
    device: Device,
    progress: Callable[[str], None],
) -> list[Observed]:
    """Ask every Bundle for its answers in its own runtime, then time all of them by turns."""
    judge, answered = Judge(), []
    for path in bundles:
        progress(f"answers of {path.name}")
        data = path.read_bytes()
        one = Observed(path.name, len(data), gzip_bytes(data))
        try:
            scores = judge.answer_pictures(path, pictures, lambda _: None).scores
            answered.append(dataclasses.replace(one, scores=scores))
        except CandidateFailed as error:
            answered.append(dataclasses.replace(one, failures=(str(error),)))
    with tempfile.TemporaryDirectory(prefix="smidgen-table-") as folder:
        journal = Path(folder, "measurements.jsonl")
        sweep = measure(bundles, recipe, journal, device=device, progress=progress)
    return [_timed(one, path, sweep) for one, path in zip(answered, bundles)]


def _timed(one: Observed, path: Path, sweep: Sweep) -> Observed:
    rows = [row.sample.inference_ns for row in sweep.rows if row.bundle_file == path.name]
    failures = [each.reason for each in sweep.failures if each.bundle_file == str(path)]
    return dataclasses.replace(one, inference_ns=tuple(rows), failures=(*one.failures, *failures))


def _rows(arguments: argparse.Namespace) -> list[BundleRow]:
    bundles: list[Path] = arguments.bundles
    names = [path.name for path in bundles]
    if len(set(names)) < len(names):
        raise NothingToMeasure("two Bundles have one file name: rename one, the table needs both")
    for path in bundles:
        if not path.is_file():
            raise NothingToMeasure(f"{path}: no such file; name .tflite or .onnx Bundles")
    labels = Bundle.open(bundles[0]).manifest.labels
    pictures = _pictures(arguments, labels)
    recipe = BenchRecipe(rounds=arguments.rounds, threads=arguments.threads)
    observed = observe(bundles, pictures, recipe, LocalDevice(), _say)
    images = JudgedImages(
        truth=np.array([picture.label for picture in pictures], np.int64),
        labels=tuple(labels),
        contents=[picture.sha256 for picture in pictures],
    )
    drops = arguments.max_drop
    if len(drops) not in (1, len(bundles) - 1):
        raise NothingToMeasure(
            f"--max-drop has {len(drops)} numbers for {len(bundles) - 1} Bundles after the first: "
            "expected one, or one for each"
        )
    each = drops * (len(bundles) - 1) if len(drops) == 1 else drops
    limits = dict(zip(names, [0.0, *each]))
    return rows_of(observed, _cost_baseline(arguments), images, limits)


def _pictures(arguments: argparse.Namespace, labels: Sequence[str]) -> list[Picture]:
    if arguments.run is None:
        return labelled(arguments.images, labels)
    from smidgen.export.source import from_run
    from smidgen.train.run import Run

    return list(from_run(Run.open(arguments.run)).held_out)


def _cost_baseline(arguments: argparse.Namespace) -> int:
    wanted = arguments.costs_of or arguments.bundles[0]
    if wanted not in arguments.bundles:
        raise NothingToMeasure(f"--costs-of {wanted} is none of the Bundles: name one of them")
    return int(arguments.bundles.index(wanted))


def _fails(row: BundleRow) -> bool:
    return row.verdict is None or row.verdict.verdict == "fail"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.quantization.table",
        description="Compare Bundles of one task: bytes, zipped bytes, time and top-1.",
    )
    add = parser.add_argument
    add("bundles", type=Path, nargs="+", metavar="BUNDLE", help="the first one is the float model")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="FOLDER", help="a folder per label")
    source.add_argument("--run", type=Path, metavar="RUN", help="judge on its test split")
    add("--costs-of", type=Path, metavar="BUNDLE", help="whose bytes and time are 100 %%")
    add("--max-drop", type=float, nargs="+", default=[1.0], help="points of top-1 (default 1)")
    add("--rounds", type=int, default=7, help="in which the Bundles take turns (default 7)")
    add("--threads", type=int, default=1, help="of the engines (default 1)")
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    add("--json", type=Path, metavar="FILE", help="write all rows")
    return parser


def _head(arguments: argparse.Namespace) -> list[str]:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = gather()
    return [
        f"{now}, commit {source_commit()[:12] or 'unknown'}",
        f"{facts.line()}; load {facts.load_average_1min:.2f}",
        f"threads {arguments.threads}; {arguments.rounds} rounds",
    ]


def _say(line: str) -> None:
    print(f"quantization   {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
