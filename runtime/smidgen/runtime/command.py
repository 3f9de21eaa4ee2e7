"""The command on the device: ``smidgen-runtime``, or ``python -m smidgen.runtime``.

Results go to standard output (with ``--json`` one JSON object a line), problems to standard error,
one line each. Exit status: 0 well, 1 something failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Optional

from smidgen.runtime import __version__, streams
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classification, Classifier
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.errors import EngineMissing, ImageError, SelfTestFailed, SmidgenError
from smidgen.runtime.native_stderr import without_chatter
from smidgen.runtime.schema import as_mapping
from smidgen.runtime.selftest import examine
from smidgen.runtime.timing import measure

PROGRAM = "smidgen-runtime"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parse, do, print; returns the exit status."""
    streams.prepare()
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        streams.drop_stdout()
        return 1
    except OSError as error:
        streams.drop_stdout()
        _complain(f"cannot write the output ({error.strerror or error}); free some space")
        return 1


def parser() -> argparse.ArgumentParser:
    """The command's options, for ``--help`` and for documentation."""
    top = argparse.ArgumentParser(
        prog=PROGRAM, description="Classify pictures with a smidgen Bundle (.tflite or .onnx)."
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    classify = commands.add_parser("classify", help="label pictures")
    classify.add_argument("model", metavar="MODEL", help="the Bundle")
    classify.add_argument("images", metavar="IMAGE", nargs="+", help="picture files")
    classify.add_argument("--top", type=_at_least(1), default=1, help="answers a picture (1)")
    classify.set_defaults(do=_classify)

    selftest = commands.add_parser("selftest", help="run the golden sample inside the Bundle")
    selftest.add_argument("model", metavar="MODEL", help="the Bundle")
    selftest.set_defaults(do=_selftest)

    info = commands.add_parser("info", help="show what the Bundle says about itself")
    info.add_argument("model", metavar="MODEL", help="the Bundle")
    info.set_defaults(do=_info)

    bench = commands.add_parser("bench", help="time the Bundle; --json has the raw nanoseconds")
    bench.add_argument("model", metavar="MODEL", help="the Bundle")
    bench.add_argument("--warmup", type=_at_least(0), default=5, help="unrecorded runs (5)")
    bench.add_argument("--runs", type=_at_least(1), default=50, help="recorded runs (50)")
    bench.add_argument("--image", help="a picture file (default: the golden picture inside)")
    bench.set_defaults(do=_bench)

    for command in (classify, selftest, bench):
        command.add_argument(
            "--backend", default="auto", help=f"auto, {', '.join(ENGINES)} (default: auto)"
        )
        command.add_argument("--threads", type=_at_least(1), default=1, help="CPU threads (1)")
    doctor = commands.add_parser("doctor", help="show what this machine can run and what it lacks")
    doctor.add_argument("models", metavar="MODEL", nargs="*", help="Bundles to try on each engine")
    doctor.add_argument(
        "--backend", choices=("auto", *ENGINES), default="auto", help="try this engine alone"
    )
    doctor.set_defaults(do=_doctor)

    for command in (classify, selftest, info, bench, doctor):
        command.add_argument("--json", action="store_true", help="one JSON object a line")
    return top


def _main(arguments: Optional[Sequence[str]]) -> int:
    options = parser().parse_args(arguments)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' remarks: odd EXIF data, deprecations
    try:
        status: int = options.do(options)
        sys.stdout.flush()
    except SmidgenError as error:
        _complain(str(error))
        return 1
    return status


def _classify(options: argparse.Namespace) -> int:
    status = 0
    with without_chatter():
        classifier = Classifier(options.model, backend=options.backend, threads=options.threads)
    with classifier:
        for image in options.images:
            try:
                answer = classifier.classify(image, top=options.top)
            except ImageError as error:
                _complain(str(error))
                status = 1
                continue
            _print_answer(image, answer, options.json)
    return status


def _print_answer(image: str, answer: Classification, as_json: bool) -> None:
    if as_json:
        _print_json({"image": image, **as_mapping(answer)})
        return
    mark = " (unsure)" if answer.abstained else ""
    best = ", ".join(f"{one.label} {100 * one.score:.1f}%" for one in answer.top)
    print(f"{image}: {best}{mark}", flush=True)


def _selftest(options: argparse.Namespace) -> int:
    with without_chatter():
        classifier = Classifier(options.model, backend=options.backend, threads=options.threads)
    with classifier:
        report = examine(classifier)
    if options.json:
        _print_json({**as_mapping(report), "passed": report.passed})
    else:
        print(f"{report.bundle} on {report.engine} {report.engine_version}")
        for stage in report.stages:
            print(f"  {'ok  ' if stage.passed else 'FAIL'} {stage.name}: {stage.detail}")
    if not report.passed:
        raise SelfTestFailed(
            f"{report.bundle}: the selftest failed; do not trust its answers on this machine"
        )
    return 0


def _info(options: argparse.Namespace) -> int:
    bundle = Bundle.open(options.model)
    if options.json:
        manifest = as_mapping(bundle.manifest)
        _print_json(
            {
                "path": str(bundle.path),
                "file_bytes": bundle.file_bytes,
                "file_sha256": bundle.file_sha256,
                "manifest": manifest,
            }
        )
        return 0
    for name, value in _summary(bundle):
        print(f"{name:<14} {value}")
    return 0


def _summary(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    size, verdict = manifest.preprocessing, manifest.verdict
    labels = ", ".join(manifest.labels[:8]) + (", ..." if len(manifest.labels) > 8 else "")
    gate = "not judged"
    if verdict is not None:
        gate = (
            f"{verdict.verdict}: top-1 {verdict.top1_percent:.2f} %, drop "
            f"{verdict.drop_points:.2f} points on {verdict.images} images"
        )
    return [
        ("name", manifest.name),
        ("file", f"{bundle.path} ({bundle.file_bytes:,} bytes)"),
        ("sha256", bundle.file_sha256),
        ("model", f"{manifest.scheme} .{manifest.model_format}, {manifest.provenance.backbone}"),
        ("input", f"{size.width} x {size.height} RGB, {size.fit} {size.crop_fraction:g}"),
        ("labels", f"{len(manifest.labels)}: {labels}"),
        ("gate", gate),
        ("made from", f"{manifest.provenance.source} {manifest.provenance.created_utc}".rstrip()),
    ]


def _bench(options: argparse.Namespace) -> int:
    with without_chatter():
        sample = measure(
            options.model,
            backend=options.backend,
            threads=options.threads,
            warmup=options.warmup,
            runs=options.runs,
            image=options.image,
        )
    if options.json:
        _print_json(as_mapping(sample))
        return 0
    print(f"{options.model} on {sample.engine} {sample.engine_version}, {sample.threads} thread(s)")
    for name in ("import_ns", "load_ns", "first_inference_ns"):
        print(f"  {name[:-3]:<16} {getattr(sample, name) / 1e6:9.2f} ms")
    for name in ("decode_ns", "preprocess_ns", "inference_ns", "whole_ns"):
        values = getattr(sample, name)
        print(
            f"  {name[:-3]:<16} {statistics.median(values) / 1e6:9.2f} ms (median of {len(values)})"
        )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import shutil
    import textwrap

    from smidgen.runtime import doctor

    chosen = tuple(ENGINES) if options.backend == "auto" else (options.backend,)
    report = doctor.examine(options.models, backends=chosen)
    if options.json:
        _print_json({**as_mapping(report), "can_run": report.can_run})
    width = max(40, shutil.get_terminal_size().columns)
    for title, text in () if options.json else doctor.screen(report):
        lines = textwrap.wrap(
            text, width - 12, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
        )
        print("\n".join(f"{title if line is lines[0] else '':<11} {line}" for line in lines))
    if not report.can_run:
        what = "one of the Bundles" if report.bundles else "Bundles"
        raise EngineMissing(f"no engine here runs {what}; the report says why and what to install")
    return 0


def _print_json(mapping: dict[str, Any]) -> None:
    print(json.dumps(mapping), flush=True)


def _complain(message: str) -> None:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)


def _at_least(low: int) -> Any:
    """An argparse type: a whole number of at least ``low``."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < low:
            raise argparse.ArgumentTypeError(f"{text}: expected at least {low}")
        return number

    return whole_number
