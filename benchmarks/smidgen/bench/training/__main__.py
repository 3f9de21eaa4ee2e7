"""How fast smidgen trains, beside plain ``keras fit`` and PyTorch's timm, in one run.

    python -m smidgen.bench.training FOLDER --timm-python PATH [--image-size 128] [--rounds 7]
    python -m smidgen.bench.training FOLDER --to-accuracy --timm-python PATH [--image-size 224]
    python -m smidgen.bench.training --memory

**Images/s** (the first form). FOLDER holds a folder of images per class. EfficientNet-Lite0 is
trained from its ImageNet weights by each contender in a process of its own; they take turns, round
by round in a changing order, and sleep while another one trains. Four tables are printed, in
Markdown: all layers or the head alone, from one batch again and again or from the files (ours from
decoded images that it keeps; decoding them is not part of it: see ``smidgen.bench.loading``). Each
has the median images/s, how many times as fast ours is, with the 95 % interval of the ratios of the
rounds, and the time from a built network to the end of the first step, imports apart. The head also
learns on features that are computed once: the pass and the epochs on them are rows of their own.

All use as many threads as there are cores. On a CPU, bfloat16 takes part beside float32 where the
CPU has it. On a GPU: ``--backend jax --precision bfloat16 --image-size 224 --batch-size 256``.

**Minutes to an accuracy** (``--to-accuracy``): see ``accuracy``. **Memory** (``--memory``): see
``memory``. timm runs in an environment of its own, which needs torch, torchvision, timm and numpy:
``--timm-python`` is the Python of it, 3.11 or newer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from smidgen.bench.facts import DeviceFacts, gather
from smidgen.bench.origin import source_commit
from smidgen.bench.training.contenders import CPU_CAN_BFLOAT16, Field, Precision
from smidgen.bench.training.contest import Worker, compare
from smidgen.bench.training.setting import Setting
from smidgen.bench.training.speed import TITLES, as_mapping, as_markdown, busiest_wait, rows
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.files import write_text


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print; 1 where a contender failed, 2 where there is nothing to train on."""
    arguments = _parser().parse_args(argv)
    if not arguments.memory and (arguments.folder is None or not arguments.folder.is_dir()):
        print(f"FOLDER is {arguments.folder}: name a folder of images", file=sys.stderr)
        return 2
    facts = gather()
    if arguments.memory:
        from smidgen.bench.training.memory import measure as measured
    elif arguments.to_accuracy:
        from smidgen.bench.training.accuracy import measure as measured
    else:
        measured = _speed
    try:
        text, raw, failures = measured(arguments, facts)
    except SmidgenError as error:
        print(error, file=sys.stderr)
        return 1
    head = _head(facts)
    print("\n".join([f"{line}  " for line in head] + ["", text]), end="")
    if arguments.json is not None:
        write_text(arguments.json, json.dumps({"head": head, **raw}, indent=1) + "\n")
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _speed(arguments: argparse.Namespace, facts: DeviceFacts) -> Any:
    tables, raw, failures = [], [], []
    with tempfile.TemporaryDirectory(prefix="smidgen-rooms-") as links:
        for (stage, source), title in TITLES.items():
            if arguments.only and f"{stage}-{source}" not in arguments.only:
                continue
            field = _field(arguments, facts, Path(links))
            field = replace(field, base=replace(field.base, stage=stage, source=source))
            makers = [partial(Worker, contender) for contender in field.contenders()]
            contest = compare(makers, arguments.rounds, arguments.sample_seconds, _say)
            _say(f"busiest while it waited: {busiest_wait(contest):.1%} of a core")
            tables.append(as_markdown(rows(contest, field.reference), title, field.reference))
            raw.append(as_mapping(contest, field.base))
            failures += contest.failures
    line = f"{arguments.image_size} px, batch {arguments.batch_size}, {arguments.rounds} rounds"
    return "\n".join([f"{line}\n", *tables]), {"contests": raw}, failures


def _field(arguments: argparse.Namespace, facts: DeviceFacts, links: Path) -> Field:
    precisions: tuple[Precision, ...] = tuple(arguments.precision or ("float32",))
    is_able = any(flag in facts.cpu_flags for flag in CPU_CAN_BFLOAT16)
    if not arguments.precision and is_able:
        precisions = ("float32", "bfloat16")
    base = Setting(
        folder=str(arguments.folder.resolve()),
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
        stage="full",
        source="batch",
        precision=precisions[0],
        backend=arguments.backend,
        threads=facts.cores,
    )
    return Field(base, precisions, arguments.timm_python, links)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.training",
        description="Compare how fast a network is trained: smidgen, keras fit and timm.",
    )
    add = parser.add_argument
    add("folder", type=Path, nargs="?", help="images: a folder per class")
    add("--timm-python", type=Path, help="Python that has torch and timm (default: without timm)")
    add("--image-size", type=int, default=128, help="pixels (default 128)")
    add("--batch-size", type=int, default=32, help="images per step (default 32)")
    add("--backend", choices=("tensorflow", "jax"), default="tensorflow", help="of Keras")
    add("--precision", choices=("float32", "bfloat16"), nargs="+", help="default: see above")
    add("--rounds", type=int, default=7, help="counted rounds (default 7)")
    add("--sample-seconds", type=float, default=4.0, help="of a sample, about (default 4)")
    names = [f"{stage}-{source}" for stage, source in TITLES]
    add("--only", choices=names, nargs="+", help="these tables (default: all)")
    add("--to-accuracy", action="store_true", help="minutes from FOLDER to an accuracy")
    add("--targets", type=float, nargs="+", default=[80, 85, 90], help="validation top-1, percent")
    add("--epochs", type=int, default=10, help="of timm's fine-tuning (default 10)")
    add("--train-flags", default="", help="more flags of our smidgen train, in one argument")
    add("--memory", action="store_true", help="peak memory with a data set and one 10 x as large")
    add("--images", type=int, default=1000, help="of the smaller data set (default 1000)")
    add("--json", type=Path, metavar="PATH", help="write all that was measured")
    return parser


def _head(facts: DeviceFacts) -> list[str]:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return [
        f"{now}, commit {source_commit()[:12] or 'unknown'}",
        f"{facts.line()}; load {facts.load_average_1min:.2f}",
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
