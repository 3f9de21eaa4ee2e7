"""The runtime beside a loop written by hand and MediaPipe, in one run, with the goals.

    python -m smidgen.bench.runtime_speed BUNDLE PHOTO [--large-photo PHOTO]
        [--python .venv-runtime-litert/bin/python] [--mediapipe-python .venv-mediapipe/bin/python]
        [--rounds 9] [--runs 40] [--markdown FILE] [--json FILE]

BUNDLE is EfficientNet-Lite0 int8 at 224 px, PHOTO any photo: it is made 500x375 px and, unless
``--large-photo`` is given, 4000x3000. Every round starts each contender in a fresh process, in a
changing order; medians of the rounds make the ratios and their 95 % intervals (for seconds and MB:
the least and the most of the rounds). classify() and the loop written by hand, which decodes all,
take turns within one process. All on one thread. ``--python`` has the runtime, LiteRT and Pillow
(default: this one); ``--mediapipe-python`` has mediapipe (default: without it).

The exit status is 1 where a contender failed. On a machine that does other work, ratios hold with
wider intervals; seconds do not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from PIL import Image

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.facts import gather
from smidgen.bench.origin import source_commit
from smidgen.bench.runtime_speed.contest import Contender, FreshProcess, compare
from smidgen.bench.runtime_speed.goals import (
    LARGE,
    SMALL,
    STARTED,
    STARTED_BY_HAND,
    as_mapping,
    mediapipe,
    pair,
    rows,
    table_of,
)
from smidgen.bench.runtime_speed.installed import installed_bytes
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.files import write_text
from smidgen.runtime.preprocessing import decode

HERE = Path(__file__).parent
SMALL_SIZE, LARGE_SIZE = (500, 375), (4000, 3000)
_JPEG_QUALITY = 90
_RUNS_AFTER_A_START = 5
_LARGE_SHARE = 5
"""A large photo is classified this many times less often in a round."""


def contenders(arguments: argparse.Namespace, small: Path, large: Path) -> list[Contender]:
    """Everybody who takes part, by the goals' names. Raises BundleError."""
    size = Bundle.open(arguments.bundle).manifest.preprocessing

    def process(name: str, python: Path, script: str, photo: Path, runs: int) -> Contender:
        given = (arguments.bundle, photo, runs, size.crop_fraction, size.resample)
        return FreshProcess(name, python, HERE / script, tuple(map(str, given)))

    runs, few = arguments.runs, max(1, arguments.runs // _LARGE_SHARE)
    ours = arguments.python
    found = [
        process(STARTED, ours, "runtime_worker.py", small, _RUNS_AFTER_A_START),
        process(STARTED_BY_HAND, ours, "by_hand_worker.py", small, _RUNS_AFTER_A_START),
        process(pair(SMALL), ours, "pair_worker.py", small, runs),
        process(pair(LARGE), ours, "pair_worker.py", large, few),
    ]
    if arguments.mediapipe_python is not None:
        other = arguments.mediapipe_python
        found += [
            process(mediapipe(SMALL), other, "mediapipe_worker.py", small, runs),
            process(mediapipe(LARGE), other, "mediapipe_worker.py", large, few),
        ]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print; 1 where a contender failed."""
    arguments = _parser().parse_args(argv)
    failures: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="smidgen-speed-") as folder:
            small, large = Path(folder, "small.jpg"), Path(folder, "large.jpg")
            _photo(arguments.photo, SMALL_SIZE, small)
            _photo(arguments.large_photo or arguments.photo, LARGE_SIZE, large)
            head = _head(arguments)
            contest = compare(contenders(arguments, small, large), arguments.rounds, _say)
        try:
            installed = installed_bytes(arguments.python)
        except ContenderFailed as error:
            installed = {}
            failures.append(str(error))
        failures += contest.failures
        found = rows(contest, installed)
        table = table_of(found)
        sys.stdout.write("\n".join([*head, "", table.as_text()]))
        if arguments.markdown is not None:
            text = "\n".join([*(f"{line}  " for line in head), "", table.as_markdown()])
            write_text(arguments.markdown, text)
        if arguments.json is not None:
            raw = {"head": head, "measured": as_mapping(contest, found, installed)}
            write_text(arguments.json, json.dumps(raw, indent=1) + "\n")
    except SmidgenError as error:
        print(error, file=sys.stderr)
        return 1
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _photo(source: Path, size: tuple[int, int], target: Path) -> None:
    """``source`` as an RGB JPEG of ``size``; the very file where it is one already."""
    image = decode(source)
    if image.format == "JPEG" and image.mode == "RGB" and image.size == size:
        target.write_bytes(source.read_bytes())
        return
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    small.save(target, "JPEG", quality=_JPEG_QUALITY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.runtime_speed",
        description="Compare the runtime with a loop written by hand and with MediaPipe.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="EfficientNet-Lite0 int8 .tflite, 224 px")
    add("photo", type=Path, metavar="PHOTO", help="made 500x375 px")
    add("--large-photo", type=Path, metavar="PHOTO", help="made 4000x3000 px (default: PHOTO)")
    add("--python", type=Path, default=Path(sys.executable), help="has the runtime and LiteRT")
    add("--mediapipe-python", type=Path, help="has mediapipe (default: without it)")
    add("--rounds", type=int, default=9, help="counted rounds (default 9)")
    add("--runs", type=int, default=40, help="of a round and contender (default 40)")
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    add("--json", type=Path, metavar="FILE", help="write all samples")
    return parser


def _head(arguments: argparse.Namespace) -> list[str]:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = gather()
    return [
        f"{arguments.bundle.name}, {now}, commit {source_commit()[:12] or 'unknown'}",
        f"{facts.line()}; load {facts.load_average_1min:.2f}",
        f"1 thread; {arguments.rounds} rounds of {arguments.runs} runs",
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
