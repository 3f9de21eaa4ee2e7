"""``smidgen train``: a folder of images in, a Run folder with a fine-tuned network out."""

from __future__ import annotations

import argparse

from smidgen.cli.flags import add_flags
from smidgen.cli.recipe_file import TRAIN_TABLES
from smidgen.cli.sources import add_source, recipe_and_run

SUMMARY = "fine-tune a network on a folder of images"
DESCRIPTION = """\
Fine-tune a pretrained network on a folder of images, into a Run folder. Interrupted, it goes on
after the last whole epoch when it is called again. Prints the Run folder."""
EXAMPLES = """\
  smidgen train photos/ --image-size 160 --out runs/photos
  smidgen train recipe.toml --full-epochs 4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings of the three tables that decide a Run."""
    add_source(parser)
    add_flags(parser, TRAIN_TABLES)


def execute(arguments: argparse.Namespace) -> int:
    """Train, and print the Run folder."""
    recipe, folder = recipe_and_run(arguments, TRAIN_TABLES)
    from smidgen.train.loop import train
    from smidgen.train.progress import ConsoleProgress

    progress = ConsoleProgress()
    try:
        run = train(recipe.train, folder, progress=progress)
    finally:
        progress.finish()
    print(run.folder)
    return 0
