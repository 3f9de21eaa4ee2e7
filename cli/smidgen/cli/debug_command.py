"""``smidgen debug``: where in the network an int8 file loses its answers, and what to try."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from smidgen.cli.errors import UsageError
from smidgen.train.models.backbones import BackboneName

if TYPE_CHECKING:
    from smidgen.export.source import FloatModel

SUMMARY = "show which layers of an int8 file lose accuracy, and what to try"
DESCRIPTION = """\
Run an int8 .tflite file and its float network on the same calibration images and compare them
layer by layer: signal to quantization noise, ranges, saturation, and how unlike the channels are.
Prints a row for each layer, the ten that add the most noise, and what to try against it."""
EXAMPLES = """\
  smidgen debug runs/photos runs/photos/bundles/photos-int8.tflite
  smidgen debug runs/photos photos-int8.tflite --picture noise.png --json noise.json
  smidgen debug --pretrained efficientnet-lite0 --images photos/ lite0-int8.tflite"""

_IMAGES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, what it was made from, and where results go."""
    parser.add_argument("run", metavar="RUN", nargs="?", help="the Run that BUNDLE was made from")
    parser.add_argument("bundle", metavar="BUNDLE", help="an int8 .tflite file")
    parser.add_argument(
        "--pretrained",
        metavar="NAME",
        choices=get_args(BackboneName),
        help=f"the 1,000-class ImageNet model instead: {', '.join(get_args(BackboneName))}",
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="with --pretrained: the pictures of its export"
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=_count,
        default=_IMAGES,
        help=f"how many calibration images to run (default {_IMAGES})",
    )
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--picture", metavar="FILE", help="draw the layers into a PNG file")


def execute(arguments: argparse.Namespace) -> int:
    """Compare, and print; noise is no failure."""
    _check(arguments)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from smidgen.export.progress import ConsoleProgress
    from smidgen.export.seeing.diagnosis import diagnose
    from smidgen.export.seeing.diagnosis_text import as_text

    source = _source(arguments)
    found = diagnose(source, Path(arguments.bundle), ConsoleProgress(), images=arguments.count)
    if arguments.json:
        from smidgen.runtime.files import write_text

        text = json.dumps(found.as_mapping(), indent=2, ensure_ascii=False)
        write_text(Path(arguments.json), text + "\n")
    if arguments.picture:
        from smidgen.export.seeing.diagnosis_picture import draw_diagnosis

        draw_diagnosis(found, Path(arguments.picture))
    print(as_text(found))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for arguments that do not go together."""
    if bool(arguments.run) == bool(arguments.pretrained):
        raise UsageError(
            "name what BUNDLE was made from: a Run folder before it, or --pretrained and a network"
        )
    if bool(arguments.pretrained) != bool(arguments.images):
        raise UsageError("--pretrained and --images go together: a Run knows its own images")
    for name in (arguments.run, arguments.images):
        if name and not Path(name).is_dir():
            raise UsageError(f"{name}: no such folder")
    if not Path(arguments.bundle).is_file():
        raise UsageError(f"{arguments.bundle}: no such file; name an int8 .tflite Bundle")


def _source(arguments: argparse.Namespace) -> FloatModel:
    from smidgen.export.source import from_pretrained, from_run
    from smidgen.train.run import Run

    if arguments.pretrained:
        return from_pretrained(arguments.pretrained, images=arguments.images)
    return from_run(Run.open(arguments.run))


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 10:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 10, got {text!r}")
    return number
