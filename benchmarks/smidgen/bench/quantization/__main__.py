"""How near int8 files are to the float model: smidgen's beside other quantizers', in one run.

    python -m smidgen.bench.quantization --images FOLDER [--network efficientnet-lite0]
        [--calibration-images 100] [--fold 0] [--markdown FILE] [--json FILE] [--files FOLDER]

The pretrained network is quantized by each contender in a process of its own, from the same float
function: BatchNorm folded, decoded pixels to logits. The calibration images are the first by
content hash (``--fold 1``: the next as many, and so on), the same tensors for all; every file is
judged on all other images, pre-processed by our manifest. Rivals quantize the network without
softmax; our files end in softmax and are read before it. Answers are those of the whole file.

NNCF and ai-edge-quantizer run in environments of their own:

    python tools/setup_env.py rival-nncf
    python tools/setup_env.py rival-aeq

Top-1 is told where the files' names begin with the class index and ``_`` (``0001_goldfish.jpg``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from smidgen.bench.facts import gather
from smidgen.bench.origin import source_commit
from smidgen.bench.quantization.contenders import CONTENDERS
from smidgen.bench.quantization.contest import Processes, Row, hold
from smidgen.bench.quantization.fidelity_table import fidelity_notes, fidelity_table
from smidgen.bench.quantization.task import Subject
from smidgen.bench.training.contenders import linked_rooms
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.files import write_text

REPOSITORY = Path(__file__).resolve().parents[4]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, compare, print; 1 where a contender failed, 2 where there are no images."""
    arguments = _parser().parse_args(argv)
    if not arguments.images.is_dir():
        print(f"--images {arguments.images}: name a folder of images", file=sys.stderr)
        return 2
    try:
        head, rows = _contest(arguments)
        table, notes = fidelity_table(rows), fidelity_notes(rows)
        sys.stdout.write("\n".join([*head, "", table.as_text(), *notes]) + "\n")
        if arguments.markdown is not None:
            lines = [f"{line}  " for line in head]
            text = "\n".join([*lines, "", table.as_markdown(), *notes]) + "\n"
            write_text(arguments.markdown, text)
        if arguments.json is not None:
            raw = {"head": head, "rows": [dataclasses.asdict(row) for row in rows]}
            write_text(arguments.json, json.dumps(raw, indent=1) + "\n")
    except SmidgenError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if any(row.failure for row in rows) else 0


def _contest(arguments: argparse.Namespace) -> tuple[list[str], list[Row]]:
    from smidgen.bench.quantization.material import float_model, prepare

    head = _head()
    subject = Subject(
        arguments.network,
        str(arguments.images.resolve()),
        arguments.calibration_images,
        arguments.fold,
    )
    chosen = [one for one in CONTENDERS if not arguments.only or one.stem in arguments.only]
    with tempfile.TemporaryDirectory(prefix="smidgen-quantization-") as name:
        folder = Path(name)
        _say("the float model")
        material = prepare(subject, float_model(subject), folder)
        np.save(folder / "judged.npy", material.pixels)
        out = arguments.files or folder
        out.mkdir(parents=True, exist_ok=True)
        rooms = linked_rooms(folder / "rooms")
        processes = Processes(
            material.task, folder / "judged.npy", out.resolve(), arguments.environments, rooms
        )
        rows = hold(chosen, processes, material.logits, material.truth, _say)
        answers = material.logits.argmax(axis=1)
    counts = (
        f"{len(answers)} images judged, {subject.calibration_images} for calibration "
        f"(fold {subject.fold})"
    )
    truth = material.truth
    top1 = "" if truth is None else f"; float top-1 {100 * (answers == truth).mean():.2f} %"
    return [*head, f"{arguments.network}, {counts}{top1}"], rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.quantization",
        description="Compare int8 files with the float model: smidgen's and other quantizers'.",
    )
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images, any depth")
    add("--network", default="efficientnet-lite0", help="pretrained (default efficientnet-lite0)")
    add("--calibration-images", type=int, default=100, help="how many (default 100)")
    add("--fold", type=int, default=0, help="which of them, by content hash (default 0: the first)")
    names = [contender.stem for contender in CONTENDERS]
    add("--only", choices=names, nargs="+", metavar="NAME", help=f"of {', '.join(names)}")
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    add("--json", type=Path, metavar="FILE", help="write all that was measured")
    add("--files", type=Path, metavar="FOLDER", help="keep the int8 files there")
    place = "where .venv-rival-* are (default: the repository)"
    add("--environments", type=Path, default=REPOSITORY, metavar="FOLDER", help=place)
    return parser


def _head() -> list[str]:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = gather()
    return [
        f"{now}, commit {source_commit()[:12] or 'unknown'}",
        f"{facts.line()}; load {facts.load_average_1min:.2f}",
    ]


def _say(line: str) -> None:
    print(f"quantization   {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
