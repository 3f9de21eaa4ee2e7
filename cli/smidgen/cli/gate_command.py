"""``smidgen gate``: may this model file take the place of that one?"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from smidgen.cli import layout
from smidgen.cli.errors import UsageError
from smidgen.runtime.errors import SmidgenError

if TYPE_CHECKING:
    from smidgen.export.gate.held_out import HeldOut
    from smidgen.export.gate.regression import BundleModel, Comparison, Model
    from smidgen.export.gate.verdicts import Limits

SUMMARY = "compare a model file with the one before it, on held-out images"
DESCRIPTION = """\
Answer the same held-out images with two models, each in its own engine and with its own
pre-processing, and say whether the candidate is as accurate: for every retraining, by hand or in
CI. BASELINE is a stored .tflite or .onnx Bundle, or a Run folder: then its float network, and
without --images its test split. Prints a table.

exit status: 0 pass; 1 fail, also where one of the models cannot be run; 2 undecided: the images are
too few to tell; 64 the command line is wrong; 130 interrupted."""
EXAMPLES = """\
  smidgen gate new-int8.tflite --against old-int8.tflite --images held-out/
  smidgen gate new-int8.tflite --against old-int8.tflite --run runs/new --max-drop 0.5
  smidgen gate photos-int8.onnx --against runs/photos --json - --junit gate.xml"""

EXIT_OF = {"pass": 0, "fail": 1, "undecided": 2}
_STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two models, the images, the limits, and where the result goes."""
    parser.add_argument(
        "candidate", metavar="CANDIDATE",
        help="a .tflite or .onnx Bundle, or a Run folder: its smallest Bundle that passed",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="BASELINE", required=True,
        help="a .tflite or .onnx Bundle, or a Run folder: its float network",
    )  # fmt: skip
    parser.add_argument(
        "--images", metavar="FOLDER",
        help="held-out images, a folder for each label (of ready splits, test/)",
    )  # fmt: skip
    parser.add_argument("--run", metavar="RUN", help="the test split of the candidate's Run")
    parser.add_argument(
        "--max-drop", metavar="X", type=_points, default=1.0,
        help="percentage points of top-1 that the candidate may lose [0 to 100; default 1.0]",
    )  # fmt: skip
    parser.add_argument(
        "--parity", metavar="X", type=_share,
        help="for files of the same weights: the largest allowed difference of a probability; it "
        "decides, however few the images are [0 to 1]",
    )  # fmt: skip
    parser.add_argument(
        "--json", metavar="FILE", help="write every number as JSON; - prints it, not the table"
    )
    parser.add_argument("--junit", metavar="FILE", help="write the result as JUnit XML")


def execute(arguments: argparse.Namespace) -> int:
    """Compare and report; the verdict's exit status."""
    _check(arguments)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from smidgen.export.gate.regression import Comparison, Side
    from smidgen.export.gate.report import as_text
    from smidgen.export.gate.verdicts import Limits

    limits = Limits(arguments.max_drop, arguments.parity)
    try:
        found = _compare(arguments, limits)
    except UsageError:
        raise
    except SmidgenError as error:  # a gate that did not run is a failure, and CI must see it
        sides = Side(arguments.candidate), Side(arguments.against)
        origin = arguments.images or arguments.run or arguments.against
        _write(arguments, Comparison(*sides, origin, limits, error=str(error)))
        raise
    _write(arguments, found)
    if arguments.json != _STDOUT:
        sys.stdout.write(as_text(found))
    assert found.verdict is not None
    return EXIT_OF[found.verdict.verdict]


def _compare(arguments: argparse.Namespace, limits: Limits) -> Comparison:
    from smidgen.export.gate.regression import check_labels, compare
    from smidgen.export.progress import ConsoleProgress

    candidate, baseline = _models(arguments)
    check_labels(candidate, baseline)
    images = _images(arguments, candidate)
    for line in images.notes:
        print(f"smidgen: {line}", file=sys.stderr)
    return compare(candidate, baseline, images, limits, ConsoleProgress(room="gate"))


def _write(arguments: argparse.Namespace, found: Comparison) -> None:
    from smidgen.export.gate.report import as_json, as_junit
    from smidgen.runtime.files import write_text

    if arguments.json == _STDOUT:
        sys.stdout.write(as_json(found))
    elif arguments.json:
        write_text(arguments.json, as_json(found))
    if arguments.junit:
        write_text(arguments.junit, as_junit(found))


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for arguments that do not go together."""
    if arguments.images and arguments.run:
        raise UsageError("--images and --run are both given: name one of them")
    if not Path(arguments.against).exists():
        raise UsageError(f"--against {arguments.against}: no such file or folder")
    is_run = Path(arguments.against).is_dir()
    if not (arguments.images or arguments.run or is_run):
        raise UsageError(
            "on which images? add --images FOLDER (a folder for each label), or --run RUN (its "
            "test split)"
        )
    for name in (arguments.images, arguments.run):
        if name and not Path(name).is_dir():
            raise UsageError(f"{name}: no such folder")
    for name in (arguments.json, arguments.junit):
        if name and name != _STDOUT:
            _check_can_be_written(Path(name))
    if arguments.junit == _STDOUT:
        raise UsageError("--junit -: expected the name of a file; only --json can go to stdout")


def _check_can_be_written(path: Path) -> None:
    """Before minutes of work: raises UsageError where the result could not be written."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: expected the name of a file to write")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}; name a file in another folder"
        ) from error


def _models(arguments: argparse.Namespace) -> tuple[BundleModel, Model]:
    from smidgen.export.gate.regression import BundleModel, RunModel
    from smidgen.export.source import from_run
    from smidgen.train.run import Run

    candidate = BundleModel.open(layout.best_bundle(arguments.candidate))
    if Path(arguments.against).is_dir():
        return candidate, RunModel(arguments.against, from_run(Run.open(arguments.against)))
    return candidate, BundleModel.open(arguments.against)


def _images(arguments: argparse.Namespace, candidate: BundleModel) -> HeldOut:
    """The held-out images. Raises GateError for those that were trained on."""
    from smidgen.export.gate import held_out
    from smidgen.train.run import Run

    if arguments.images:
        images = held_out.from_class_folders(arguments.images, candidate.labels)
    else:
        name = arguments.run or arguments.against
        run = Run.open(name)
        made_of = candidate.bundle.manifest.provenance.data_sha256
        held_out.check_same_data(made_of, run.dataset(), name, candidate.name)
        images = held_out.test_split(run, candidate.labels)
    if Path(arguments.against).is_dir():
        dataset = Run.open(arguments.against).dataset()
        held_out.check_not_trained_on(images, dataset, arguments.against)
    return images


def _points(text: str) -> float:
    return _number(text, 100.0)


def _share(text: str) -> float:
    return _number(text, 1.0)


def _number(text: str, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= high:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {high:g}, got {text!r}")
    return number
