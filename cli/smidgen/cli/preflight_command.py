"""``smidgen preflight``: what will hurt on which target, before any GPU hour."""

from __future__ import annotations

import argparse
import difflib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from smidgen.cli import layout
from smidgen.cli.errors import UsageError
from smidgen.export.seeing.targets import TARGET_NAMES
from smidgen.train.models.backbones import BackboneName

if TYPE_CHECKING:
    from smidgen.export.seeing.preflight import Subject

SUMMARY = "say what will hurt on which target, before any training"
DESCRIPTION = """\
Build a network and say what it will cost where it is to run: size, memory, operators that a target
has no fast form for, and what int8 did to it elsewhere, with the sources. Needs no images, weights
or GPU. Verdicts: fine, costs (runs, but slower, larger or less accurate), breaks."""
EXAMPLES = """\
  smidgen preflight efficientnet-b0
  smidgen preflight efficientnet-lite0 --image-size 96 --classes 10 --for tflite-micro
  smidgen preflight runs/photos --json"""

_CLASSES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, and where it is to run."""
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help=f"a finished Run folder, or one of {', '.join(get_args(BackboneName))}",
    )
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=_count,
        help="side of the input (default: what the network's weights were trained with)",
    )
    parser.add_argument(
        "--classes", metavar="N", type=_count, help=f"number of classes (default {_CLASSES})"
    )
    parser.add_argument(
        "--for",
        dest="targets",
        metavar="TARGET",
        action="append",
        choices=TARGET_NAMES,
        help=f"only this one, may be repeated: {', '.join(TARGET_NAMES)}",
    )
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")


def execute(arguments: argparse.Namespace) -> int:
    """Look, and print; what is found is no failure."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    subject = _subject(arguments)
    from smidgen.export.seeing.preflight import preflight
    from smidgen.export.seeing.preflight_text import as_text

    found = preflight(subject, arguments.targets or TARGET_NAMES)
    if arguments.json:
        print(json.dumps(found.as_mapping(), indent=2, ensure_ascii=False))
    else:
        print(as_text(found))
    return 0


def _subject(arguments: argparse.Namespace) -> Subject:
    """The network asked for. Raises UsageError, NotARun, SchemaError."""
    name, names = arguments.network, get_args(BackboneName)
    is_folder = Path(name).is_dir()
    if not is_folder and name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        raise UsageError(
            f"{name}: no such Run folder, and no such network;"
            + (f" did you mean {close[0]}?" if close else f" networks: {', '.join(names)}")
        )
    if is_folder and (arguments.image_size or arguments.classes):
        raise UsageError("--image-size and --classes go with a network's name: a Run has its own")
    from smidgen.export.seeing.preflight import of_backbone, of_run
    from smidgen.train.run import Run

    if not is_folder:
        return of_backbone(name, arguments.image_size, arguments.classes or _CLASSES)
    return of_run(Run.open(name), layout.bundles_in(Path(name)))


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number
