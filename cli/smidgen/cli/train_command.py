"""``smidgen train``: a folder of images in, a Run folder with a fine-tuned network out."""

from __future__ import annotations

import argparse
from pathlib import Path

from smidgen.cli.errors import UsageError
from smidgen.cli.flags import add_flags, overrides
from smidgen.cli.recipe_file import TRAIN_TABLES
from smidgen.cli.sources import add_source, recipe_and_run
from smidgen.train.recipe import TrainRecipe
from smidgen.train.run import Run

SUMMARY = "fine-tune a network on a folder of images"
DESCRIPTION = """\
Fine-tune a pretrained network on a folder of images, into a Run folder. Interrupted or killed, it
goes on from its last checkpoint when it is called again, or with --resume RUN. Prints the Run
folder."""
EXAMPLES = """\
  smidgen train photos/ --image-size 160 --out runs/photos
  smidgen train recipe.toml --full-epochs 4
  smidgen train pets/ --labels file-names --split 80,20
  smidgen train pages/ --labels orientation --augmentation pixel --no-horizontal-flip
  smidgen train --resume runs/photos"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings of the tables that decide a Run, and how training goes on its way."""
    add_source(parser, is_optional=True)
    parser.add_argument(
        "--resume", metavar="RUN", help="go on with the Run in this folder, by its own recipe"
    )
    parser.add_argument(
        "--checkpoint-every-steps",
        metavar="N",
        type=_count,
        default=500,
        help="steps between two checkpoints; one is made after each epoch, too (500)",
    )
    _add_hosts(parser)
    add_flags(parser, TRAIN_TABLES)


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several processes that train one Run together",
        "With --backend jax, on one host or several: see docs/hosts.md. One process uses all GPUs\n"
        "of its host as it is; Slurm, Open MPI and Kubernetes need none of these flags.",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        default="",
        help="process 0's host as the others reach it, and a free port on it",
    )
    group.add_argument(
        "--processes",
        metavar="N",
        type=_count,
        default=0,
        help="how many there are (1: this one alone, whatever the launcher says)",
    )
    group.add_argument(
        "--process-id",
        metavar="I",
        type=int,
        default=-1,
        help="which of them this is, 0 to N - 1; process 0 writes the Run",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Train, and print the Run folder."""
    recipe, folder = _resumed(arguments) if arguments.resume else _new(arguments)
    from smidgen.train.hosts import Hosts
    from smidgen.train.loop import Options, train
    from smidgen.train.progress import ConsoleProgress

    progress = ConsoleProgress()
    try:
        hosts = Hosts(arguments.coordinator, arguments.processes, arguments.process_id)
        options = Options(arguments.checkpoint_every_steps, hosts)
        run = train(recipe, folder, progress=progress, options=options)
    finally:
        progress.finish()
    print(run.folder)
    return 0


def _new(arguments: argparse.Namespace) -> tuple[TrainRecipe, Path]:
    if arguments.source is None:
        raise UsageError(
            "nothing to train on: name a folder of images or a recipe.toml, or --resume RUN"
        )
    recipe, folder = recipe_and_run(arguments, TRAIN_TABLES)
    return recipe.train, folder


def _resumed(arguments: argparse.Namespace) -> tuple[TrainRecipe, Path]:
    """The recipe in the Run folder; nothing may be said beside it. Raises NotARun, UsageError."""
    beside = [arguments.source, arguments.out, overrides(arguments, TRAIN_TABLES)]
    if any(beside):
        raise UsageError(
            f"--resume {arguments.resume} goes on by the recipe in that folder: leave out SOURCE, "
            "--out and all settings"
        )
    run = Run(arguments.resume)
    return run.recipe, run.folder


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number
