"""``smidgen run``: the whole line, from a folder of images to measured model files."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from smidgen.cli import layout
from smidgen.cli.flags import add_flags
from smidgen.cli.line import LineResult, run_line
from smidgen.cli.recipe_file import TABLES
from smidgen.cli.sources import add_source, recipe_and_run
from smidgen.cli.stages import ProcessRunner

SUMMARY = "a folder of images in, verified and measured model files out"
DESCRIPTION = """\
Train a classifier on a folder of images, export it as verified .tflite and .onnx files, and
measure them on this machine. A stage that is finished is not done again: after an interruption,
the same command goes on. Flags override the recipe."""
EXAMPLES = """\
  smidgen run photos/                       photos/cat/1.jpg, photos/dog/2.jpg, ...
  smidgen run photos/ --image-size 160 --full-epochs 4 --max-drop 0.5
  smidgen run recipe.toml --out runs/second"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every setting of every stage is a flag."""
    add_source(parser)
    add_flags(parser, list(TABLES))


def execute(arguments: argparse.Namespace) -> int:
    """Run the stages and show what came of them; the exit status."""
    recipe, run = recipe_and_run(arguments, list(TABLES))
    return show(run_line(recipe, run, runner=ProcessRunner(), progress=_say), run)


def show(result: LineResult, run: Path) -> int:
    """Print table, files and next commands; on stderr the time and what failed. The status."""
    if result.bench_is_done:
        print((run / layout.BENCH / layout.REPORT_TEXT).read_text(encoding="utf-8"))
        print(_files(result))
        print(_next_commands(result))
    _say(_seconds(result))
    for line in result.complaints:
        _say(line)
    return result.status


def _say(line: str) -> None:
    print(f"smidgen: {line}", file=sys.stderr, flush=True)


def _files(result: LineResult) -> str:
    lines = [f"{path.stat().st_size:>12,} bytes  {path}" for path in result.files]
    return "files\n" + "\n".join(lines) + "\n"


def _next_commands(result: LineResult) -> str:
    model, picture = result.best_bundle, result.picture or Path("IMAGE")
    commands = [[_program("smidgen"), "run", "YOUR_FOLDER"]]
    if model is not None:
        commands.append([_program("smidgen-runtime"), "classify", str(model), str(picture)])
    return "try next\n" + "\n".join(f"  {shlex.join(command)}" for command in commands)


def _program(name: str) -> str:
    """What to type for a command of this environment, activated or not."""
    beside = Path(sys.executable).parent / name
    if shutil.which(name) or not beside.is_file():
        return name
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


def _seconds(result: LineResult) -> str:
    parts = [
        f"{outcome.stage} {'done before' if outcome.was_done else f'{outcome.seconds:.0f} s'}"
        for outcome in result.outcomes
    ]
    return ", ".join(parts)
