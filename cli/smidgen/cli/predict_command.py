"""``smidgen predict``: label pictures with a Bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from smidgen.cli import layout
from smidgen.cli.endings import EXIT_FAILED
from smidgen.runtime.classifier import Classification, Classifier
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.errors import ImageError
from smidgen.runtime.native_stderr import without_chatter
from smidgen.runtime.schema import as_mapping

SUMMARY = "label pictures with a model file"
DESCRIPTION = """\
Label pictures. MODEL is a Bundle, or a Run folder: then the smallest Bundle that passed its gate.
Prints the picture, the label and its probability, separated by tabs; a picture that cannot be
read is reported, the others are labelled, and the exit status is 1."""
EXAMPLES = """\
  smidgen predict runs/photos photo.jpg
  smidgen predict photos-int8.tflite *.jpg --top 3 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the pictures, and how to run and print."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite or .onnx Bundle, or a Run folder")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures to label")
    parser.add_argument("--top", metavar="N", default=1, type=_count, help="labels a picture (1)")
    parser.add_argument(
        "--threads", metavar="N", default=1, type=_count, help="threads of the engine (1)"
    )
    parser.add_argument(
        "--engine", default="auto", choices=("auto", *ENGINES), help="engine to use (auto)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def execute(arguments: argparse.Namespace) -> int:
    """Label each picture; nonzero when one of them could not be read."""
    model = layout.best_bundle(arguments.model)
    with without_chatter():
        classifier = Classifier(model, backend=arguments.engine, threads=arguments.threads)
    if Path(arguments.model).is_dir():
        print(f"smidgen: {model}", file=sys.stderr)
    failed = 0
    with classifier:
        for image in arguments.images:
            try:
                answer = classifier.classify(image, top=arguments.top)
            except ImageError as error:
                failed += 1
                print(f"smidgen: {error}", file=sys.stderr)
                continue
            print(_as_json(image, answer) if arguments.json else _as_text(image, answer))
    return EXIT_FAILED if failed else 0


def _as_text(image: str, answer: Classification) -> str:
    note = "\tbelow the model's threshold" if answer.abstained else ""
    return "\n".join(f"{image}\t{item.label}\t{item.score:.4f}{note}" for item in answer.top)


def _as_json(image: str, answer: Classification) -> str:
    return json.dumps({"image": image, **as_mapping(answer)}, ensure_ascii=False)


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number
