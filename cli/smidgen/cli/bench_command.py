"""``smidgen bench``: measure Bundles on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from smidgen.cli import layout
from smidgen.cli.endings import EXIT_FAILED
from smidgen.cli.flags import add_flags, overrides
from smidgen.cli.recipe_file import load, merged, one_table

SUMMARY = "measure model files on this machine"
DESCRIPTION = """\
Measure Bundles on this machine: time to load, first and later answers, and peak memory. Each one
is run in fresh processes that take turns. Prints the table; every raw sample is kept in
OUT/measurements.jsonl, the table as text, Markdown and JSON beside it."""
EXAMPLES = """\
  smidgen bench runs/photos
  smidgen bench a-int8.tflite a-float32.tflite --threads 2 --rounds 10
  smidgen bench runs/photos --print json | python -m json.tool"""

_TABLES = ("bench",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Bundles, where to keep the samples, and the settings of [bench]."""
    parser.add_argument(
        "bundles", metavar="BUNDLE", nargs="+", help="a .tflite or .onnx file, or a folder of them"
    )
    parser.add_argument("--recipe", metavar="FILE", help="a recipe.toml: its table [bench] is used")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where results go (default: bench/ beside the first file)"
    )
    parser.add_argument(
        "--print",
        dest="form",
        choices=("text", "markdown", "json"),
        default="text",
        help="what to print (default text)",
    )
    add_flags(parser, _TABLES)


def execute(arguments: argparse.Namespace) -> int:
    """Measure, keep, print; nonzero when a Bundle could not be measured."""
    base = load(Path(arguments.recipe)) if arguments.recipe else {}
    recipe = one_table(merged(base, overrides(arguments, _TABLES)), "bench")
    bundles = layout.bundles_named(arguments.bundles)
    out = Path(arguments.out) if arguments.out else bundles[0].parent / layout.BENCH
    from smidgen.bench.local import LocalDevice
    from smidgen.bench.measure import measure
    from smidgen.bench.printers import as_json, as_markdown, as_text
    from smidgen.bench.report import report_of
    from smidgen.runtime.files import write_text

    sweep = measure(bundles, recipe, out / layout.JOURNAL, device=LocalDevice(), progress=_say)
    report = report_of(sweep)
    forms = {"text": as_text(report), "markdown": as_markdown(report), "json": as_json(report)}
    write_text(out / layout.REPORT_TEXT, forms["text"])
    write_text(out / layout.REPORT_MARKDOWN, forms["markdown"])
    write_text(out / layout.REPORT_JSON, forms["json"])
    sys.stdout.write(forms[arguments.form])
    return EXIT_FAILED if sweep.failures else 0


def _say(line: str) -> None:
    print(f"bench   {line}", file=sys.stderr, flush=True)
