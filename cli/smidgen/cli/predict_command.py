"""``smidgen predict``: label pictures with a Bundle, or with the float network of a Run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from smidgen.cli import layout
from smidgen.cli.answer_pictures import AnswerPictures
from smidgen.cli.endings import EXIT_FAILED
from smidgen.cli.errors import UsageError
from smidgen.runtime.classifier import Classification, Classifier
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.errors import ImageError
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.schema import as_mapping
from smidgen.runtime.streams import without_chatter
from smidgen.train.run import Run

SUMMARY = "label pictures with a model file, or with a trained Run"
DESCRIPTION = """\
Label pictures. MODEL is a Bundle, or a Run folder: then the smallest Bundle that passed its gate
or, where nothing was exported yet, the Run's own float network (by Keras, which takes seconds to
start). Prints the picture, the label and its probability, separated by tabs; a picture that cannot
be read is reported, the others are labelled, and the exit status is 1."""
EXAMPLES = """\
  smidgen predict runs/photos photo.jpg
  smidgen predict runs/photos *.jpg --float --picture answers.png
  smidgen predict photos-int8.tflite *.jpg --top 3 --json"""

_TOP_IN_PICTURES = 5


class Labeller(Protocol):
    """What a Bundle's Classifier and a Run's have in common."""

    def classify(self, image: str, *, top: int) -> Classification:
        """The best ``top`` labels of one picture. Raises ImageError."""
        ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the pictures, and how to run, print and draw."""
    parser.add_argument("model", metavar="MODEL", help="a .tflite or .onnx Bundle, or a Run folder")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures to label")
    parser.add_argument(
        "--top", metavar="N", type=_count, help=f"labels a picture (1; drawn: {_TOP_IN_PICTURES})"
    )
    parser.add_argument(
        "--picture", metavar="FILE_OR_FOLDER",
        help="draw each picture beside a bar chart of its probabilities: into one sheet where the "
        "name ends in .png, else into that folder as NAME-answer.png",
    )  # fmt: skip
    parser.add_argument(
        "--float", action="store_true", help="the Run's own float network, exported or not"
    )
    parser.add_argument("--threads", metavar="N", type=_count, help="threads of the engine (1)")
    parser.add_argument(
        "--engine", default="auto", choices=("auto", *ENGINES), help="engine to use (auto)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def execute(arguments: argparse.Namespace) -> int:
    """Label each picture; nonzero when one of them could not be read."""
    printed = arguments.top or 1
    drawn = arguments.top or _TOP_IN_PICTURES
    pictures = None
    if arguments.picture is not None:
        pictures = AnswerPictures(arguments.picture, arguments.images)
    opened, preprocessing = _open(arguments)
    failed = 0
    with opened as labeller:
        for image in arguments.images:
            try:
                answer = labeller.classify(image, top=drawn if pictures else printed)
                if pictures:
                    pictures.add(image, answer, preprocessing)
            except ImageError as error:
                failed += 1
                print(f"smidgen: {error}", file=sys.stderr)
                continue
            answer = dataclasses.replace(answer, top=answer.top[:printed])
            print(_as_json(image, answer) if arguments.json else _as_text(image, answer))
    if pictures:
        pictures.finish()
    return EXIT_FAILED if failed else 0


def _open(
    arguments: argparse.Namespace,
) -> tuple[AbstractContextManager[Labeller], Preprocessing]:
    """What answers, and how it sees pictures; says on stderr which file of a Run it is."""
    folder = Path(arguments.model)
    if arguments.float and not folder.is_dir():
        raise UsageError(f"--float with {folder}: expected a Run folder, which has a float network")
    has_recipe = Run(folder).recipe_path.is_file()
    if arguments.float or (has_recipe and not layout.bundles_in(folder)):
        return _open_run(arguments, Run.open(folder))
    model = layout.best_bundle(arguments.model)
    with without_chatter():
        classifier = Classifier(model, backend=arguments.engine, threads=arguments.threads or 1)
    if folder.is_dir():
        print(f"smidgen: {model}", file=sys.stderr)
    return classifier, classifier.manifest.preprocessing


def _open_run(
    arguments: argparse.Namespace, run: Run
) -> tuple[AbstractContextManager[Labeller], Preprocessing]:
    if arguments.engine != "auto" or arguments.threads is not None:
        raise UsageError(
            "--engine and --threads are for Bundles, and the float network of "
            f"{arguments.model} runs in Keras; leave them out, or export the Run"
        )
    from smidgen.train.classifier import RunClassifier

    why = "" if arguments.float else "; nothing was exported yet"
    model = Path(arguments.model) / run.model_path.name
    print(f"smidgen: {model} (the float network, in Keras{why})", file=sys.stderr)
    return nullcontext(RunClassifier(run)), run.preprocessing()


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
