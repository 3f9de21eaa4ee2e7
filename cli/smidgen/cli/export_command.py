"""``smidgen export``: a float model in, verified Bundles out."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from smidgen.cli import layout
from smidgen.cli.endings import EXIT_FAILED
from smidgen.cli.errors import UsageError
from smidgen.cli.flags import add_flags, overrides
from smidgen.cli.recipe_file import Tables, load, merged, one_table
from smidgen.train.models.backbones import BackboneName

if TYPE_CHECKING:
    from smidgen.export.source import FloatModel

SUMMARY = "turn a trained model into verified .tflite and .onnx files"
DESCRIPTION = """\
Convert and quantize the model of a Run, and judge each file against it on the held-out images, in
the engine that will run it. A file that loses more than --max-drop is kept under a name that says
so, and the exit status is 1. Prints each file, its size and its verdict, separated by tabs."""
EXAMPLES = """\
  smidgen export runs/photos --max-drop 0.5
  smidgen export runs/photos --formats tflite --schemes int8
  smidgen export --pretrained efficientnet-lite0
  smidgen export --pretrained efficientnet-lite0 --images photos/"""

_TABLES = ("export",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the float model comes from, where the files go, and the settings of [export]."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="a finished Run folder")
    parser.add_argument(
        "--pretrained",
        metavar="NAME",
        choices=get_args(BackboneName),
        help=f"the 1,000-class ImageNet model instead: {', '.join(get_args(BackboneName))}",
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="with --pretrained: pictures for calibration and gate, labels not needed",
    )
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="a recipe.toml: its table [export] is used (default: the one that `run` left in RUN)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the files go (default: bundles/ in the Run folder)"
    )
    add_flags(parser, _TABLES)


def execute(arguments: argparse.Namespace) -> int:
    """Export, print each file; nonzero when a gate failed."""
    _check(arguments)
    home = Path(arguments.run) if arguments.run else layout.RUNS / arguments.pretrained
    left = home / layout.RECIPE
    recipe_file = arguments.recipe or (left if left.is_file() else None)
    base = load(Path(recipe_file)) if recipe_file else {}
    tables = merged(base, overrides(arguments, _TABLES))
    if arguments.pretrained and not arguments.images:
        tables = _without_calibration(tables)
    recipe = one_table(tables, "export")
    folder = Path(arguments.out) if arguments.out else home / layout.BUNDLES
    os.environ["KERAS_BACKEND"] = "tensorflow"  # export always runs on it, train chose before
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from smidgen.export.line import export
    from smidgen.export.progress import ConsoleProgress

    result = export(_source(arguments), recipe, folder, ConsoleProgress())
    for bundle in result.bundles:
        print(f"{bundle.path}\t{bundle.file_bytes}\t{bundle.verdict.verdict}")
    return EXIT_FAILED if result.failed else 0


def _without_calibration(tables: Tables) -> Tables:
    """float32 alone, unless int8 was asked for. Raises UsageError if it was."""
    asked = tables.get("export", {}).get("schemes")
    if asked and "int8" in asked:
        raise UsageError(
            "int8 needs pictures for calibration and for the gate: add --images FOLDER (200 or "
            "more, labels not needed), or --schemes float32"
        )
    if not asked:
        print("smidgen: float32 only: int8 needs --images FOLDER", file=sys.stderr)
    return merged(tables, {"export": {"schemes": ["float32"]}})


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for arguments that do not go together."""
    if bool(arguments.run) == bool(arguments.pretrained):
        raise UsageError(
            "name what to export: a Run folder, or --pretrained and a network (one of the two)"
        )
    if arguments.images and not arguments.pretrained:
        raise UsageError("--images goes with --pretrained: a Run knows its own images")
    for name in (arguments.run, arguments.images):
        if name and not Path(name).is_dir():
            raise UsageError(f"{name}: no such folder")


def _source(arguments: argparse.Namespace) -> FloatModel:
    from smidgen.export.source import from_pretrained, from_run
    from smidgen.train.run import Run

    if arguments.pretrained:
        return from_pretrained(arguments.pretrained, images=arguments.images)
    return from_run(Run.open(arguments.run))
