"""A sweep: every Bundle on one Device, in rounds, each time in a fresh process.

The Bundles take turns, so that a machine that warms up or gets busy slows all of them alike, and a
ratio taken within a round stays fair. A Bundle that fails is reported once and left out of the
remaining rounds; the others go on.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import smidgen.runtime
from smidgen.bench.device import Device
from smidgen.bench.errors import DeviceAnswerBad, NothingToMeasure
from smidgen.bench.facts import DeviceFacts
from smidgen.bench.measurement import Measurement, append
from smidgen.bench.origin import source_commit
from smidgen.bench.recipe import BenchRecipe
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.errors import SchemaError, SmidgenError
from smidgen.runtime.manifest import Verdict
from smidgen.runtime.schema import build
from smidgen.runtime.timing import TimingSample


@dataclass(frozen=True)
class Failure:
    """A Bundle that could not be measured to its end, and why, in one line.

    ``bundle_sha256`` is empty where the file could not even be opened.
    """

    bundle_file: str
    bundle_sha256: str
    reason: str


@dataclass(frozen=True)
class Sweep:
    """What a sweep brought home. ``verdicts`` are the Bundles' own, by their ``bundle_sha256``."""

    rows: tuple[Measurement, ...]
    verdicts: dict[str, Verdict | None]
    failures: tuple[Failure, ...]


def measure(
    bundles: Sequence[Path],
    recipe: BenchRecipe,
    journal: Path,
    *,
    device: Device,
    progress: Callable[[str], None],
) -> Sweep:
    """Measure ``bundles`` on ``device``; each row is in ``journal`` as soon as it is taken.

    Args:
        progress: is told one line for each process and each failure.

    Raises:
        NothingToMeasure: ``bundles`` is empty.
        OutputError: the journal cannot be written.
        DeviceError: the Device itself cannot be reached (a Bundle's failure never raises).
    """
    if not bundles:
        raise NothingToMeasure("no Bundle to measure: name at least one .tflite or .onnx file")
    failures: list[Failure] = []
    opened = _open_all(bundles, failures, progress)
    items = list(opened.items())
    remote = {path: device.push(path) for path in opened}
    rows: list[Measurement] = []
    sweep = f"{_utc_now()}-{secrets.token_hex(2)}"
    for number in range(recipe.rounds if remote else 0):
        facts = device.facts()
        for position, index in enumerate(turn(len(items), number, recipe.order_seed)):
            path, bundle = items[index]
            if path not in remote:
                continue
            progress(f"round {number + 1}/{recipe.rounds}: {path.name}")
            try:
                sample = _sample(device.run(arguments(remote[path], recipe)))
            except SmidgenError as error:
                del remote[path]
                failures.append(_failed(path, bundle.file_sha256, error, progress))
                continue
            taken = _Turn(sweep, number, position)
            rows.append(_row(taken, bundle, device.name, facts, sample))
            append(journal, rows[-1])
    verdicts = {bundle.file_sha256: bundle.manifest.verdict for bundle in opened.values()}
    return Sweep(tuple(rows), verdicts, tuple(failures))


def turn(count: int, number: int, seed: int) -> list[int]:
    """The order of ``count`` Bundles in round ``number``.

    One shuffle for the sweep, rotated by one each round, so that every Bundle comes first as often
    as any other; backwards in odd rounds, so that it does not always follow the same neighbour.
    """
    order = list(range(count))
    random.Random(seed).shuffle(order)
    is_backwards = number % 2 == 1
    shift = (number + is_backwards) % max(count, 1)
    order = order[shift:] + order[:shift]
    return order[::-1] if is_backwards else order


def arguments(model: str, recipe: BenchRecipe) -> list[str]:
    """What the runtime's command is given to measure ``model`` once."""
    return [
        "bench",
        model,
        "--json",
        f"--backend={recipe.engine}",
        f"--threads={recipe.threads}",
        f"--warmup={recipe.warmup}",
        f"--runs={recipe.runs}",
    ]


def _open_all(
    bundles: Sequence[Path], failures: list[Failure], progress: Callable[[str], None]
) -> dict[Path, Bundle]:
    """The Bundles that can be trusted, each content once; the others become Failures."""
    opened: dict[Path, Bundle] = {}
    seen: set[str] = set()
    for path in bundles:
        try:
            bundle = Bundle.open(path)
            if bundle.file_sha256 not in seen:
                opened[path] = bundle
            seen.add(bundle.file_sha256)
        except SmidgenError as error:
            failures.append(_failed(path, "", error, progress))
        except OSError as error:
            reason = f"cannot read the file: {error.strerror or error}"
            failures.append(_failed(path, "", reason, progress))
    return opened


def _failed(path: Path, sha256: str, reason: object, progress: Callable[[str], None]) -> Failure:
    text = str(reason).removeprefix(f"{path}: ")
    progress(f"FAILED {path}: {text}")
    return Failure(str(path), sha256, text)


def _sample(stdout: str) -> TimingSample:
    try:
        sample = build(TimingSample, json.loads(stdout), where="sample")
    except (ValueError, SchemaError) as error:
        raise DeviceAnswerBad(
            f"the runtime's answer is no timing sample ({error}): install the same version of "
            f"smidgen-runtime ({smidgen.runtime.__version__}) on the device"
        ) from error
    if not sample.inference_ns:
        raise DeviceAnswerBad("the runtime's answer holds no timed run")
    return sample


class _Turn(NamedTuple):
    """Which turn of which sweep a row was taken in; both numbers count from 0."""

    sweep: str
    round: int
    position: int


def _row(
    turn_taken: _Turn, bundle: Bundle, device_name: str, facts: DeviceFacts, sample: TimingSample
) -> Measurement:
    return Measurement(
        sweep=turn_taken.sweep,
        utc=_utc_now(),
        round=turn_taken.round,
        position=turn_taken.position,
        bundle_sha256=bundle.file_sha256,
        bundle_file=bundle.path.name,
        name=bundle.manifest.name,
        model_format=bundle.manifest.model_format,
        scheme=bundle.manifest.scheme,
        file_bytes=bundle.file_bytes,
        weights_sha256=bundle.manifest.provenance.weights_sha256,
        input_height=bundle.manifest.preprocessing.height,
        input_width=bundle.manifest.preprocessing.width,
        smidgen_version=smidgen.runtime.__version__,
        commit=source_commit(),
        device_name=device_name,
        device=facts,
        sample=sample,
    )


def _utc_now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
