"""``smidgen export``: a float model in, verified Bundles out."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from smidgen.cli import layout
from smidgen.cli.endings import EXIT_FAILED
from smidgen.cli.errors import UsageError
from smidgen.cli.flags import add_flags, overrides
from smidgen.cli.recipe_file import EXPORT_TABLES, Tables, export_plan, load, merged, one_table
from smidgen.export.recipe import BudgetRecipe, ExportPlan
from smidgen.train.models.backbones import BackboneName

if TYPE_CHECKING:
    from smidgen.export.source import FloatModel

SUMMARY = "turn a trained model into verified .tflite and .onnx files"
DESCRIPTION = """\
Shrink, convert and quantize the model of a Run, and judge each file against it on the held-out
images, in the engine that will run it. A file that loses more than --max-drop is kept under a name
that says so, and the exit status is 1. Prints each file, its size and its verdict, separated by
tabs. With --max-ms or --max-bytes, looks for one file within that budget: tries the cheapest remedy
first, and prints each with what it costs; the file is NAME-best.tflite (or .onnx)."""
EXAMPLES = """\
  smidgen export runs/photos --max-drop 0.5
  smidgen export runs/photos --formats tflite --schemes int8 --for tflite-micro --c-header
  smidgen export runs/photos --keep-channels 0.5 --channels-epochs 4
  smidgen export runs/photos --max-drop 0.5 --max-ms 10 --max-bytes 1500000
  smidgen export --model mine.keras --labels labels.txt --images photos/ --mean 127.5 --std 127.5
  smidgen export --pretrained efficientnet-lite0
  smidgen export --pretrained efficientnet-lite0 --images photos/"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the float model comes from, where the files go, and the settings of export's tables."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="a finished Run folder")
    parser.add_argument(
        "--pretrained",
        metavar="NAME",
        choices=get_args(BackboneName),
        help=f"the 1,000-class ImageNet model instead: {', '.join(get_args(BackboneName))}",
    )
    parser.add_argument(
        "--model", metavar="FILE", help="any Keras model file instead; needs --labels and --images"
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="with --model: its labels, a line for each output"
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="with --pretrained: pictures for calibration and gate, labels not needed; with "
        "--model: a folder per class, or ready train/ validation/ test/",
    )
    for name, meaning in (("mean", "subtracted from pixels 0..255"), ("std", "then divided by")):
        parser.add_argument(
            f"--{name}",
            metavar="X",
            help=f"with --model: what is {meaning} before the model; one number, or three as R,G,B "
            f"(default {'0' if name == 'mean' else '1'}: the model takes pixels as they are)",
        )
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="a recipe.toml: its tables for export are used (default: the one that `run` left)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the files go (default: bundles/ in the Run folder)"
    )
    add_flags(parser, EXPORT_TABLES)


def execute(arguments: argparse.Namespace) -> int:
    """Export, print each file; nonzero when a gate failed or no file fits the budget."""
    _check(arguments)
    home = _home(arguments)
    left = home / layout.RECIPE
    recipe_file = arguments.recipe or (left if left.is_file() else None)
    base = load(Path(recipe_file)) if recipe_file else {}
    tables = merged(base, overrides(arguments, EXPORT_TABLES))
    if arguments.pretrained and not arguments.images:
        tables = _without_calibration(tables)
    plan, budget = export_plan(tables), one_table(tables, "budget")
    folder = Path(arguments.out) if arguments.out else home / layout.BUNDLES
    os.environ["KERAS_BACKEND"] = "tensorflow"  # export always runs on it, train chose before
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    source = _source(arguments)
    if budget.is_set:
        return _climb(source, plan, budget, folder)
    return _export(source, plan, folder)


def _export(source: FloatModel, plan: ExportPlan, folder: Path) -> int:
    from smidgen.export.line import export
    from smidgen.export.progress import ConsoleProgress

    result = export(source, plan, folder, ConsoleProgress())
    for bundle in result.bundles:
        print(f"{bundle.path}\t{bundle.file_bytes}\t{bundle.verdict.verdict}")
    return EXIT_FAILED if result.failed else 0


def _climb(source: FloatModel, plan: ExportPlan, budget: BudgetRecipe, folder: Path) -> int:
    from smidgen.cli.stopwatch import stopwatch_on
    from smidgen.export.compression import PASSES_FOLDER
    from smidgen.export.ladder.climb import Ladder, describe
    from smidgen.export.ladder.rungs import Abilities, Limits
    from smidgen.export.line import export
    from smidgen.export.progress import ConsoleProgress

    progress = ConsoleProgress()
    limits = Limits(budget.max_ms, budget.max_bytes, plan.export.undecided == "warn")

    def make(rung_plan: ExportPlan, place: Path) -> Any:
        return export(source, rung_plan, place, progress, folder / PASSES_FOLDER)

    ladder = Ladder(
        limits,
        Abilities(source.training is not None, plan.export.formats),
        make,
        stopwatch_on(budget.on),
        progress,
    )
    climb = ladder.climb(plan, folder, plan.export.name or source.name)
    for item in climb.tried:
        print(f"{item.rung.name}\t{describe(item, limits)}\t{item.seconds:.0f} s")
    for item in climb.pareto:
        if item.file is not None:
            print(f"pareto\t{item.file}")
    for line in climb.advice:
        print(f"smidgen: {line}", file=sys.stderr)
    if climb.final is None:
        return EXIT_FAILED
    print(f"best\t{climb.final}")
    return 0


def _home(arguments: argparse.Namespace) -> Path:
    """The folder that an export without --out belongs to."""
    if arguments.run:
        return Path(arguments.run)
    return layout.RUNS / (arguments.pretrained or Path(arguments.model).stem)


def _without_calibration(tables: Tables) -> Tables:
    """float32 alone, unless int8 was asked for. Raises UsageError if it was."""
    asked = tables.get("export", {}).get("schemes")
    if asked and {"int8", "int16x8"} & set(asked):
        raise UsageError(
            "int8 needs pictures for calibration and for the gate: add --images FOLDER (200 or "
            "more, labels not needed), or --schemes float32"
        )
    if not asked:
        print("smidgen: float32 only: int8 needs --images FOLDER", file=sys.stderr)
    return merged(tables, {"export": {"schemes": asked or ["float32"]}})


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for arguments that do not go together."""
    named = [name for name in (arguments.run, arguments.pretrained, arguments.model) if name]
    if len(named) != 1:
        raise UsageError(
            "name what to export: a Run folder, --model and a Keras file, or --pretrained and a "
            "network (one of the three)"
        )
    if arguments.images and arguments.run:
        raise UsageError("--images goes with --pretrained or --model: a Run knows its own images")
    if arguments.model and not (arguments.labels and arguments.images):
        raise UsageError(
            "--model needs --labels FILE (a line for each output) and --images FOLDER (a folder "
            "per class), to calibrate and to verify"
        )
    if not arguments.model and (arguments.labels or arguments.mean or arguments.std):
        raise UsageError("--labels, --mean and --std go with --model")
    for name in (arguments.run, arguments.images):
        if name and not Path(name).is_dir():
            raise UsageError(f"{name}: no such folder")


def _source(arguments: argparse.Namespace) -> FloatModel:
    from smidgen.export.source import from_pretrained, from_run
    from smidgen.train.run import Run

    if arguments.pretrained:
        return from_pretrained(arguments.pretrained, images=arguments.images)
    if arguments.run:
        return from_run(Run.open(arguments.run))
    from smidgen.export.keras_file import KerasFile, from_keras_file, read_labels
    from smidgen.export.source import ChannelNormalization
    from smidgen.train.recipe import DataRecipe

    mean = _numbers("--mean", arguments.mean or "0")
    std = _numbers("--std", arguments.std or "1")
    if min(std) <= 0:
        raise UsageError(f"--std {arguments.std}: expected numbers above 0")
    return from_keras_file(
        KerasFile(
            Path(arguments.model),
            read_labels(Path(arguments.labels)),
            DataRecipe(arguments.images),
            ChannelNormalization.of(mean, std),
        )
    )


def _numbers(flag: str, text: str) -> list[float]:
    """One number three times, or three. Raises UsageError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise UsageError(f"{flag} {text}: expected a number, or three as 123.7,116.3,103.5")
    return numbers
