"""The export gate by cross-validation: every image of a folder judged, none by who learnt from it.

    python -m smidgen.bench.quantization.folds FOLDER --work WORK [--folds 10] [--max-drop 0.3]
        [--train "--image-size 224 ..."] [--export "--schemes int8 ..."] [--markdown FILE]
        [--json FILE]

A test split of a few hundred images cannot prove a drop below a point. Here FOLDER (a folder for
each class, or ready splits, which are joined) is dealt over folds; for each, ``smidgen train`` and
``smidgen export`` run with the flags given, and the gate compares each file with the float network
of that fold on the fold's images. The counts of all folds are added up. Every image counts once;
the networks of the folds share most of what they were trained on, so the result is about this way
of making a file, not about one file.

The same command goes on where it was stopped. WORK keeps the lists, Runs and Bundles.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.facts import gather
from smidgen.bench.origin import source_commit
from smidgen.bench.quantization.fold_lists import write_lists
from smidgen.bench.quantization.pooled import Pooled, pool, pooled_table
from smidgen.export.result import REPORT_FILE, ExportedBundle, made_before
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.files import write_text
from smidgen.train.progress import ConsoleProgress

Command = Callable[[Sequence[str]], int]
"""Runs ``smidgen ARGV...`` and gives its exit status."""

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train and export each fold, print; 1 where anything failed, or a verdict is "fail"."""
    arguments = _parser().parse_args(argv)
    try:
        places = write_lists(
            arguments.folder, arguments.work / "lists", arguments.folds, ConsoleProgress()
        )
        made = [make_fold(place, arguments, smidgen) for place in places]
        rows = pool(made, arguments.max_drop)
        _tell(rows, made, arguments)
    except SmidgenError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    return 1 if any(row.verdict == "fail" or row.folds < len(made) for row in rows) else 0


def smidgen(argv: Sequence[str]) -> int:
    """Run a command in a child process; its stderr is ours, its stdout is dropped."""
    command = [sys.executable, "-P", "-m", "smidgen.cli", *argv]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
    ).returncode


def make_fold(
    place: Path, arguments: argparse.Namespace, command: Command
) -> tuple[ExportedBundle, ...]:
    """Train and export one fold.

    Args:
        place: holds its ``index.csv``; its name is the fold's.
        arguments: of this program.
        command: runs ``smidgen``.

    Raises:
        ContenderFailed: one of the two ended badly. A file that fails the gate is no failure here.
    """
    run, bundles = arguments.work / "runs" / place.name, arguments.work / "bundles" / place.name
    report = bundles / REPORT_FILE
    _say(f"{place.name} of {arguments.folds}: train")
    flags = ["--labels", "index", "--out", str(run)]
    status = command(["train", str(place), *flags, *shlex.split(arguments.train)])
    if status != 0:
        raise _failed(place.name, "train", status)
    _say(f"{place.name} of {arguments.folds}: export")
    before = _written_ns(report)
    flags = ["--out", str(bundles), "--max-drop", str(arguments.max_drop)]
    status = command(["export", str(run), *flags, *shlex.split(arguments.export)])
    if status != 0 and _written_ns(report) == before:
        raise _failed(place.name, "export", status)
    return made_before(bundles)


def _written_ns(path: Path) -> int:
    """When a file was written; 0 where it is not."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _failed(fold: str, command: str, status: int) -> ContenderFailed:
    if status in (_INTERRUPTED, -2):
        raise KeyboardInterrupt
    return ContenderFailed(
        f"{fold}: smidgen {command} ended with status {status}, as said above; the same command "
        "goes on from here"
    )


def _tell(
    rows: Sequence[Pooled], made: Sequence[Sequence[ExportedBundle]], arguments: argparse.Namespace
) -> None:
    table, head, notes = pooled_table(rows), _head(arguments), _notes(rows, made)
    sys.stdout.write("\n".join([*head, "", table.as_text(), *notes]) + "\n")
    if arguments.markdown is not None:
        lines = [f"{line}  " for line in head]
        text = "\n".join([*lines, "", table.as_markdown(), *notes]) + "\n"
        write_text(arguments.markdown, text)
    if arguments.json is not None:
        raw = {
            "head": head,
            "rows": [dataclasses.asdict(row) for row in rows],
            "folds": [[dataclasses.asdict(bundle) for bundle in fold] for fold in made],
        }
        write_text(arguments.json, json.dumps(raw, indent=1) + "\n")


def _head(arguments: argparse.Namespace) -> list[str]:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return [
        f"{now}, commit {source_commit()[:12] or 'unknown'}",
        gather().line(),
        f"{arguments.folds} folds; train: {arguments.train or 'defaults'}; "
        f"export: {arguments.export or 'defaults'}",
    ]


def _notes(rows: Sequence[Pooled], made: Sequence[Sequence[ExportedBundle]]) -> list[str]:
    tops = sorted({bundle.verdict.reference_top1_percent for fold in made for bundle in fold})
    notes = [
        f"float top-1 of the folds: {tops[0]:.1f} to {tops[-1]:.1f} %;",
        "lost, gained: images that only the float network, or only the file, had right;",
        "drop: points of top-1 lost [95 %, Tango]; p: exact McNemar test.",
    ]
    for row in rows:
        if row.folds < len(made):
            notes.append(f"FAILED {row.name}: made in {row.folds} of {len(made)} folds.")
        if row.verdict == "undecided":
            needed = "over a million" if row.needed is None else f"about {row.needed:,}"
            notes.append(f"{row.name}: {needed} images would decide.")
    return notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.quantization.folds",
        description="Judge what export makes of all images of a folder, by cross-validation.",
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="images: a folder per class")
    add("--work", type=Path, required=True, metavar="WORK", help="where Runs and Bundles go")
    add("--folds", type=_fold_count, default=10, help="2 to 50 (default 10)")
    add("--max-drop", type=float, default=1.0, help="points of top-1 (default 1)")
    add("--train", default="", metavar="FLAGS", help="of smidgen train, in one argument")
    add("--export", default="", metavar="FLAGS", help="of smidgen export, in one argument")
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    add("--json", type=Path, metavar="FILE", help="write all that was counted")
    return parser


def _fold_count(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 50:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of folds: expected 2 to 50")
    return int(text)


def _say(line: str) -> None:
    print(f"folds   {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
