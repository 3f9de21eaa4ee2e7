"""Whether ``Classifier.stream`` keeps the engine busy: decoding should overlap inference.

    python -m smidgen.bench.runtime_speed.stream MODEL FOLDER [--threads 1] [--rounds 7]

FOLDER holds JPEG files at any depth, MODEL is a Bundle. Four things take turns, round by round in a
changing order: decoding and pre-processing alone, inference alone, ``classify`` of one picture
after the other, and ``stream`` of the same files. Printed, in Markdown: the median ms a picture of
each, and the ratio of the stream to the slower one of its two halves, with its 95 % interval: 1.00
is all that can be had, and the exit status is 1 above 1.10. The engine's threads and the decoding
thread need cores of their own for that: ``--threads`` is at most the number of cores less one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from smidgen.bench.facts import gather
from smidgen.bench.loaders import Loader
from smidgen.bench.loading import Times, compare, take_images
from smidgen.bench.origin import source_commit
from smidgen.bench.statistics import Ratio, median_ratio, percentile_ms
from smidgen.runtime import Classifier
from smidgen.runtime.errors import SmidgenError
from smidgen.runtime.fast_pixels import load

ALLOWED = 1.10
DECODING, INFERENCE, ONE_BY_ONE, STREAM = (
    "decode and pre-process alone",
    "inference alone",
    "classify, one by one",
    "stream",
)


def parts(classifier: Classifier, paths: Sequence[str]) -> list[Loader]:
    """What takes turns; each goes through all files once."""
    preprocessing = classifier.manifest.preprocessing
    tensors = [load(path, preprocessing) for path in paths]

    def decoding() -> int:
        return sum(1 for path in paths if load(path, preprocessing).size)

    def inference() -> int:
        return sum(len(classifier.scores(pixels[None])) for pixels in tensors)

    def one_by_one() -> int:
        return sum(1 for path in paths if classifier.classify(path).label)

    def stream() -> int:
        return sum(1 for frame in classifier.stream(paths) if frame.answer.label)

    runs = (decoding, inference, one_by_one, stream)
    return [Loader(name, run) for name, run in zip((DECODING, INFERENCE, ONE_BY_ONE, STREAM), runs)]


def overlap(times: Times) -> tuple[Ratio | None, Ratio | None]:
    """The stream, and one after the other, over the slower half of the work in the same round."""
    pairs = zip(times[DECODING], times[INFERENCE])
    bound = [[max(decoding[0], inference[0])] for decoding, inference in pairs]
    return median_ratio(times[STREAM], bound), median_ratio(times[ONE_BY_ONE], bound)


def as_markdown(times: Times, head: Sequence[str]) -> str:
    """The table, below ``head``."""
    stream, one_by_one = overlap(times)
    ratios = {STREAM: stream, ONE_BY_ONE: one_by_one}
    lines = [*(f"{line}  " for line in head), "", "| part | ms a picture | over the slower half |"]
    lines.append("|---|---:|---:|")
    for name, samples in times.items():
        lines.append(f"| {name} | {percentile_ms(samples, 50):.2f} | {ratios.get(name) or ''} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print; 1 where the overlap is not what it should be, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m smidgen.bench.runtime_speed.stream",
        description="Compare a stream with decoding and inference alone.",
    )
    parser.add_argument("model", type=Path, help="a Bundle")
    parser.add_argument("folder", type=Path, help="JPEG files at any depth")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default 1)")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--images", type=int, default=100, help="at most (default 100)")
    arguments = parser.parse_args(argv)
    paths = take_images(arguments.folder, arguments.images, side=1).paths
    if not paths or arguments.rounds < 1:
        print(f"{arguments.folder}: no .jpg or .jpeg file, or no round", file=sys.stderr)
        return 2
    try:
        with Classifier(arguments.model, threads=arguments.threads) as classifier:
            times = compare(
                parts(classifier, paths),
                arguments.rounds,
                lambda line: print(line, file=sys.stderr),
            )
    except SmidgenError as error:
        print(error, file=sys.stderr)
        return 2
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = gather()
    head = [
        f"{len(paths)} JPEG files, {classifier.engine_name} {classifier.engine_version}, "
        f"{arguments.threads} thread(s), {arguments.rounds} rounds, {now}, "
        f"commit {source_commit()[:12] or 'unknown'}",
        f"{facts.line()}; load {facts.load_average_1min:.2f}",
    ]
    print(as_markdown(times, head), end="")
    ratio, _ = overlap(times)
    if ratio is None or ratio.value > ALLOWED:
        print(f"the stream takes {ratio} of its slower half, allowed {ALLOWED}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
