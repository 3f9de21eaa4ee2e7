"""The command on the device: ``smidgen-runtime``, or ``python -m smidgen.runtime``.

Results go to standard output (with ``--json`` one JSON object a line), problems to standard error,
one line each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from smidgen.runtime import __version__, streams
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classification, Classifier
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.errors import (
    EngineMissing,
    ImageUnreadable,
    SelfTestFailed,
    SlowEngineWarning,
    SmidgenError,
)
from smidgen.runtime.schema import as_mapping
from smidgen.runtime.streams import without_chatter

PROGRAM = "smidgen-runtime"
EXIT_STATUSES = """\
exit status:
  0    well
  1    something failed: a picture, the Bundle, an engine, the selftest
  2    wrong usage
  3    classify --fail-unsure: every picture was read, and an answer is unsure
  130  interrupted
"""
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif",
)  # fmt: skip
"""What is taken of a folder."""


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
        prog=PROGRAM,
        description="Classify pictures with a smidgen Bundle (.tflite or .onnx).",
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, do: Any, text: str) -> argparse.ArgumentParser:
        new = commands.add_parser(name, help=text, description=text)
        new.set_defaults(do=do, parser=new)
        new.add_argument("--json", action="store_true", help="one JSON object a line")
        return new

    classify = command("classify", _classify, "label pictures")
    classify.add_argument("model", metavar="MODEL", help="the Bundle")
    classify.add_argument(
        "images", metavar="IMAGE", nargs="*", help="files, folders, or - for standard input"
    )
    classify.add_argument("--camera", metavar="N", help="frames of camera N, or of a video file")
    classify.add_argument(
        "--smoothing", type=float, default=0.0, metavar="A",
        help="of frames: weight of what came before, 0 to below 1 (0)",
    )  # fmt: skip
    classify.add_argument(
        "--top", type=_at_least(1), default=1, metavar="N", help="answers a picture (1)"
    )
    classify.add_argument(
        "--fail-unsure", action="store_true", help="exit status 3 when an answer is unsure"
    )
    selftest = command("selftest", _selftest, "run the golden sample inside the Bundle")
    selftest.add_argument("model", metavar="MODEL", help="the Bundle")
    info = command("info", _info, "show what the Bundle says about itself")
    info.add_argument("model", metavar="MODEL", help="the Bundle")
    bench = command("bench", _bench, "time the Bundle; --json has the raw nanoseconds")
    bench.add_argument("model", metavar="MODEL", help="the Bundle")
    bench.add_argument("--warmup", type=_at_least(0), default=5, help="unrecorded runs (5)")
    bench.add_argument("--runs", type=_at_least(1), default=50, help="recorded runs (50)")
    bench.add_argument("--image", help="a picture file (default: the golden picture inside)")
    doctor = command("doctor", _doctor, "show what this machine can run and what it lacks")
    doctor.add_argument("models", metavar="MODEL", nargs="*", help="Bundles to try on each engine")
    doctor.add_argument(
        "--backend", choices=("auto", *ENGINES), default="auto", help="try this engine alone"
    )
    update = command("update", _store, "install a Bundle into a folder of models, tested")
    update.add_argument("store", metavar="STORE", help="the folder")
    update.add_argument("model", metavar="MODEL", help="the Bundle")
    update.add_argument(
        "--keep", type=_at_least(1), default=1, metavar="N", help="older models to keep (1)"
    )
    rollback = command("rollback", _store, "go back to the model before the current one")
    rollback.add_argument("store", metavar="STORE", help="the folder")
    for one, threads in ((classify, "auto"), (selftest, "1"), (bench, "1")):
        _add_engine_options(one, threads)
    for one in (classify, selftest, bench, update):
        one.add_argument("--backend", default="auto", help=f"auto, {', '.join(ENGINES)} (auto)")
        one.add_argument("--isolate", action="store_true", help="run the engine in a child process")
    for one in (classify, selftest, bench, info, update):
        one.add_argument("--trusted-key", metavar="FILE", help="take only files signed with it")
    return top


def _add_engine_options(command: argparse.ArgumentParser, threads: str) -> None:
    command.add_argument(
        "--threads", type=_threads, default=threads, metavar="N",
        help=f"CPU threads; auto: measured once, at most a second, then remembered ({threads})",
    )  # fmt: skip
    command.add_argument(
        "--delegate", action="append", default=[], metavar="NAME",
        help="of TFLite engines: xnnpack, no-xnnpack, a known name, or the path of a library",
    )  # fmt: skip
    command.add_argument(
        "--provider", action="append", default=[], metavar="NAME",
        help="of ONNX Runtime: an execution provider; the first one is preferred",
    )  # fmt: skip
    command.add_argument(
        "--decoder", choices=("auto", "reference"), default="auto",
        help="reference: large JPEG files are decoded whole (auto: scaled)",
    )  # fmt: skip


def _options_of(options: argparse.Namespace) -> dict[str, Any]:
    """What ``Classifier`` takes beside the path."""
    return {
        "backend": options.backend,
        "threads": options.threads,
        "delegates": tuple(options.delegate),
        "providers": tuple(options.provider),
        "isolate": options.isolate,
        "decoder": options.decoder,
        "trusted_key": options.trusted_key,
    }


def _main(arguments: Optional[Sequence[str]]) -> int:
    options = parser().parse_args(arguments)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("default")
            warnings.showwarning = show_warning
        try:
            status: int = options.do(options)
            sys.stdout.flush()
        except SmidgenError as error:
            _complain(str(error))
            return 1
    return status


def show_warning(
    message: Union[Warning, str], category: type[Warning], *_: object, **__: object
) -> None:
    """Our own warnings in a line; not libraries' remarks: odd EXIF data, deprecations."""
    if issubclass(category, SlowEngineWarning):
        _complain(str(message), "warning")


def _classify(options: argparse.Namespace) -> int:
    if (options.camera is None) == (not options.images):
        options.parser.error("expected pictures, or --camera N")
    with without_chatter():
        classifier = Classifier(options.model, **_options_of(options))
    with classifier:
        if options.camera is not None:
            return _watch(classifier, options)
        names = list(_pictures(options.images))
        if len(names) > 1:
            with without_chatter():
                classifier.tune()
        frames = (streams.read_stdin() if name == "-" else name for name in names)
        return _print_frames(classifier, frames, names, options)


def _store(options: argparse.Namespace) -> int:
    from smidgen.runtime.store_command import change

    return change(options)


def _watch(classifier: Classifier, options: argparse.Namespace) -> int:
    from smidgen.runtime.stream import frames_of

    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    camera = options.camera
    is_number = camera.isdecimal() and len(camera) < 6
    try:
        opened = frames_of(int(camera) if is_number else camera)
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise ImageUnreadable(f"{camera[:60]!r} is no camera or video file ({error})") from error
    with opened as frames:
        with without_chatter():
            classifier.tune()
        return _print_frames(classifier, frames, None, options)


def _print_frames(
    classifier: Classifier, frames: Any, names: Optional[list[str]], options: argparse.Namespace
) -> int:
    """Print each answer; the exit status."""
    failed = unsure = False
    settings = {"top": options.top, "smoothing": options.smoothing}
    for result in classifier.stream(frames, errors="yield", **settings):
        name = str(result.index) if names is None else names[result.index]
        if result.classification is None:
            failed = True
            _complain(str(result.error))
        else:
            unsure |= result.classification.abstained
            where = {"image": name} if names else {"frame": result.index, "dropped": result.dropped}
            _print_answer(name, where, result.classification, options.json)
    return 1 if failed else 3 if unsure and options.fail_unsure else 0


def _pictures(paths: Sequence[str]) -> Iterator[str]:
    """The paths, with folders replaced by the pictures in and below them, in order of names."""
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for names that are too long)
            yield path
            continue
        found = [str(one) for one in sorted(Path(path).rglob("*")) if _is_picture(one, path)]
        if not found:
            raise ImageUnreadable(
                f"{path}: no pictures in this folder ({', '.join(PICTURE_SUFFIXES)})"
            )
        yield from found


def _is_picture(file: Path, folder: str) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()


def _print_answer(name: str, where: dict[str, Any], answer: Classification, as_json: bool) -> None:
    if as_json:
        _print_json({**where, **as_mapping(answer)})
        return
    mark = " (unsure)" if answer.abstained else ""
    best = ", ".join(f"{one.label} {100 * one.score:.1f}%" for one in answer.top)
    print(f"{name}: {best}{mark}", flush=True)


def _selftest(options: argparse.Namespace) -> int:
    from smidgen.runtime.selftest import examine

    with without_chatter():
        classifier = Classifier(options.model, **_options_of(options))
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
    bundle = Bundle.open(options.model, trusted_key=options.trusted_key)
    signature = "valid" if options.trusted_key else _signature(bundle)
    if options.json:
        _print_json(
            {
                "path": str(bundle.path),
                "file_bytes": bundle.file_bytes,
                "file_sha256": bundle.file_sha256,
                "signature": signature,
                "manifest": as_mapping(bundle.manifest),
            }
        )
        return 0
    streams.print_table(_summary(bundle, signature))
    return 0


def _signature(bundle: Bundle) -> str:
    from smidgen.runtime import container, signatures

    names = signatures.NAMES[bundle.manifest.model_format]
    return "not verified" if names[2] in container.read(bundle.data).texts else "none"


def _summary(bundle: Bundle, signature: str) -> Iterator[tuple[str, str]]:
    manifest, origin = bundle.manifest, bundle.manifest.provenance
    size, verdict, labels = manifest.preprocessing, manifest.verdict, manifest.labels
    yield "name", manifest.name
    yield "file", f"{bundle.path} ({bundle.file_bytes:,} bytes)"
    yield "sha256", bundle.file_sha256
    advice = "; give the signer's key: --trusted-key FILE" if signature == "not verified" else ""
    yield "signature", signature + advice
    yield "model", f"{manifest.scheme} .{manifest.model_format}, {origin.backbone}"
    minimum = [f"{name} >= {version}" for name, version in sorted(manifest.minimum_runtime.items())]
    yield "needs", ", ".join(minimum) or "any version of an engine"
    yield "input", f"{size.width} x {size.height} RGB, {size.fit} {size.crop_fraction:g}"
    more = ", ..." if len(labels) > 8 else ""
    yield "labels", f"{len(labels)}: {', '.join(labels[:8])}{more}"
    unsure = f"unsure below {100 * manifest.abstain_below:g} %" if manifest.abstain_below else ""
    yield "decision", f"temperature {manifest.temperature:g}, {unsure or 'never unsure'}"
    if verdict is None:
        yield "gate", "not judged"
    else:
        yield (
            "gate",
            (
                f"{verdict.verdict}: top-1 {verdict.top1_percent:.2f} %, drop "
                f"{verdict.drop_points:.2f} points on {verdict.images} images"
            ),
        )
    yield "made from", f"{origin.source} {origin.created_utc}".rstrip()
    yield "passes", ", ".join(one.name for one in origin.passes) or "none"


def _bench(options: argparse.Namespace) -> int:
    from smidgen.runtime.timing import measure

    with without_chatter():
        sample = measure(
            options.model,
            warmup=options.warmup,
            runs=options.runs,
            image=options.image,
            **_options_of(options),
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
    from smidgen.runtime import doctor

    chosen = tuple(ENGINES) if options.backend == "auto" else (options.backend,)
    report = doctor.examine(options.models, backends=chosen)
    if options.json:
        _print_json({**as_mapping(report), "can_run": report.can_run})
    else:
        streams.print_table(doctor.screen(report))
    if not report.can_run:
        what = "one of the Bundles" if report.bundles else "Bundles"
        raise EngineMissing(f"no engine here runs {what}; the report says why and what to install")
    return 0


def _print_json(mapping: dict[str, Any]) -> None:
    print(json.dumps(mapping), flush=True)


def _complain(message: str, kind: str = "error") -> None:
    print(f"{PROGRAM}: {kind}: {message}", file=sys.stderr)


def _threads(text: str) -> Union[int, str]:
    """An argparse type."""
    number: int = 0 if text == "auto" else _at_least(1)(text)
    return number or text


def _at_least(low: int) -> Any:
    """An argparse type: a whole number of at least ``low``."""

    def whole_number(text: str) -> int:
        number = int(text)
        if number < low:
            raise argparse.ArgumentTypeError(f"{text}: expected at least {low}")
        return number

    return whole_number
