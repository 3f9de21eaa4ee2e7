"""What this machine can run and what it lacks: ``smidgen-runtime doctor``.

Libraries are imported, and Bundles run, in child processes: one that crashes is only reported.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from smidgen.runtime import machine
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.engine_checks import installed_version, is_installed
from smidgen.runtime.engines import ENGINES, install_advice
from smidgen.runtime.errors import ArgumentInvalid, SlowEngineWarning, SmidgenError

EXTRAS = {
    "pillow": "PIL.Image",
    "opencv": "cv2",
    "cryptography": "cryptography.hazmat.primitives.asymmetric.ed25519",
}
"""Packages that the runtime uses where they are, with the module of each. Pillow comes first: it is
the reference that decodes pictures."""
Task = tuple[str, Optional[str]]
"""A library to import, and with a path a Bundle to run on it."""
_CHILD = (
    "import sys; sys.path[:] = sys.argv[1:]\n"
    "from smidgen.runtime.doctor import answer_tasks; answer_tasks()"
)


@dataclass(frozen=True)
class Finding:
    """One engine or extra, or one engine on one Bundle.

    ``state`` is ``absent``, ``works``, ``broken`` (does not import) or ``crashed`` (ended its
    process); of a Bundle ``runs`` (its golden sample comes out right), ``slow`` (also), ``wrong``
    (it does not), ``refused`` or ``crashed``. ``detail``: why, in one line.
    """

    name: str
    state: str = "absent"
    detail: str = ""
    version: str = ""
    import_ns: int = 0


@dataclass(frozen=True)
class BundleNeeds:
    """What one Bundle needs, and what the engines here do with it."""

    path: str
    scheme: str = ""
    model_format: str = ""
    minimum_runtime: tuple[tuple[str, str], ...] = ()
    engines: tuple[Finding, ...] = ()
    problem: str = ""
    """Why it cannot be opened."""

    @property
    def can_run(self) -> bool:
        """Whether an engine here gives right answers."""
        return any(one.state in ("runs", "slow") for one in self.engines)


@dataclass(frozen=True)
class DoctorReport:
    """All of it. ``install``: one command for what is missing, or why there is none."""

    runtime: str
    python: str
    python_bits: int
    executable: str
    numpy: str
    machine: machine.Machine
    engines: tuple[Finding, ...]
    extras: tuple[Finding, ...]
    bundles: tuple[BundleNeeds, ...]
    install: str

    @property
    def can_run(self) -> bool:
        """Whether each Bundle has an engine; without Bundles, whether any engine imports."""
        if self.bundles:
            return all(one.can_run for one in self.bundles)
        return any(one.state == "works" for one in self.engines)


def examine(
    paths: Sequence[Union[str, os.PathLike[str]]] = (),
    *,
    backends: Sequence[str] = tuple(ENGINES),
    child_seconds: float = 120.0,
) -> DoctorReport:
    """Look at this machine, and run the golden sample of each Bundle on every engine for it.

    Takes as long as importing every engine once (TensorFlow: seconds); ``backends`` names those to
    try. A child that takes longer than ``child_seconds`` counts as crashed.

    Raises ArgumentInvalid for an unknown backend; what it finds is never raised.
    """
    from smidgen.runtime import __version__

    if not set(backends) <= set(ENGINES):
        raise ArgumentInvalid(f"backends {tuple(backends)}: expected some of {', '.join(ENGINES)}")
    opened = [_open(path) for path in dict.fromkeys(paths)]
    engines, runs = [], []
    for name, engine in ((name, ENGINES[name]) for name in ENGINES if name in backends):
        mine = [
            str(one.path)
            for one in opened
            if isinstance(one, Bundle) and one.manifest.model_format == engine.model_format
        ]
        tasks: list[Task] = [(name, None), *((name, path) for path in mine)]
        found = list(_in_children(tasks, child_seconds)) if engine.available() else [Finding(name)]
        engines.append(found[0])
        runs += [(p, one) for p, one in zip(mine, found[1:]) if found[0].state == "works"]
    extras = tuple(_in_children([(name, None) for name in EXTRAS], child_seconds))
    needs = tuple(_needs(one, runs) for one in opened)
    return DoctorReport(
        runtime=__version__,
        python=platform.python_version(),
        python_bits=64 if sys.maxsize > 2**32 else 32,
        executable=sys.executable,
        numpy=np.__version__,
        machine=machine.gather(),
        engines=tuple(engines),
        extras=extras,
        bundles=needs,
        install=install_line(engines, needs, extras[0].state == "works"),
    )


def screen(report: DoctorReport) -> Iterator[tuple[str, str]]:
    """The report as lines: a heading (or an empty text) and what is under it."""
    here = report.machine
    yield "runtime", f"smidgen-runtime {report.runtime}, numpy {report.numpy}"
    yield "python", f"{report.python}, {report.python_bits} bit, {report.executable}"
    yield "machine", f"{here.cpu_model or 'unknown CPU'}; {here.architecture}; {here.os}"
    yield "features", " ".join(here.cpu_flags) or "not told"
    limit = "" if here.cpu_limit is None else f"; a control group grants {here.cpu_limit:g}"
    yield (
        "threads",
        f"{here.usable_threads} useful: {here.usable_cores} of {here.cores} cores{limit}",
    )
    yield "memory", ", ".join(_memory(here))
    heat = here.temperature_celsius
    heat_text = "temperature not told" if heat is None else f"{heat:.0f} degrees Celsius"
    yield "clock", f"{heat_text}; governor {here.governor or 'not told'}"
    for title, found in (("engines", report.engines), ("extras", report.extras)):
        for one in found:
            took = f", imports in {one.import_ns / 1e9:.2f} s" if one.state == "works" else ""
            detail = f": {one.detail}" if one.detail else ""
            heading = title if one is found[0] else ""
            yield heading, f"{one.name:<13} {one.version or one.state}{took}{detail}"
    for needs in report.bundles:
        minimum = ", ".join(f"{name} >= {version}" for name, version in needs.minimum_runtime)
        kind = f": {needs.scheme} .{needs.model_format}, {minimum or 'any version'}"
        yield "bundle", needs.problem or needs.path + kind
        for one in needs.engines:
            yield "", f"{one.name:<13} {one.state}{': ' if one.detail else ''}{one.detail}"
    yield "to install", report.install or "nothing"


def answer_tasks() -> None:
    """The child's side: a JSON list of tasks on stdin, one line of JSON for each on stdout."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print do not disturb
    for name, path in json.load(sys.stdin):
        try:
            found = _import(name) if path is None else _run(name, path)
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            found = {"state": "broken" if path is None else "refused", "detail": lines[0][:200]}
        print(json.dumps(found), file=out, flush=True)


def _import(name: str) -> dict[str, Any]:
    import importlib

    start = time.perf_counter_ns()
    if name in ENGINES:
        ENGINES[name].load()
        version = ENGINES[name].version()
    elif is_installed(EXTRAS[name]):
        importlib.import_module(EXTRAS[name])
        version = installed_version(name, EXTRAS[name])
    else:
        return {}
    import_ns = time.perf_counter_ns() - start
    return {"state": "works", "version": version, "import_ns": import_ns}


def _run(name: str, path: str) -> dict[str, Any]:
    from smidgen.runtime.classifier import Classifier
    from smidgen.runtime.selftest import examine as run_golden_sample

    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always", SlowEngineWarning)
        classifier = Classifier(path, backend=name, threads=1)
    slow = [str(one.message) for one in remarks if issubclass(one.category, SlowEngineWarning)]
    notes = slow[:1]
    with classifier:
        stages = run_golden_sample(classifier).stages if classifier.manifest.golden else ()
    failed = next((one for one in stages if not one.passed), None)
    if failed is not None and failed.name != "image":
        return {"state": "wrong", "detail": f"{failed.name}: {failed.detail}"}
    if not stages or failed is not None:  # without Pillow, its picture cannot be decoded
        notes.append("not tested, " + (failed.detail if failed else "it has no golden sample"))
    return {"state": "slow" if slow else "runs", "detail": "; ".join(notes)}


def _in_children(tasks: Sequence[Task], seconds: float) -> Iterator[Finding]:
    """What each task found. After a crash a new child goes on with the next task."""
    import subprocess

    while tasks:
        command = [sys.executable, "-c", _CHILD, *sys.path]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(tasks).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=seconds,
                check=False,
            )
            text, ended = done.stdout, f"it ended its process (status {done.returncode})"
        except subprocess.TimeoutExpired as error:
            text, ended = error.stdout or b"", f"no answer within {seconds:g} s"
        except OSError as error:
            text, ended = b"", f"no child process can be started ({error})"
        lines = [line for line in text.splitlines() if line.endswith(b"}")]
        for (name, _), line in zip(tasks, lines):
            yield Finding(name, **json.loads(line))
        if len(lines) < len(tasks):
            yield Finding(tasks[len(lines)][0], "crashed", ended)
        tasks = tasks[len(lines) + 1 :]


def _open(path: Union[str, os.PathLike[str]]) -> Union[Bundle, BundleNeeds]:
    try:
        return Bundle.open(path)
    except SmidgenError as error:
        return BundleNeeds(os.fsdecode(path), problem=str(error))


def _needs(opened: Union[Bundle, BundleNeeds], runs: Sequence[tuple[str, Finding]]) -> BundleNeeds:
    if isinstance(opened, BundleNeeds):
        return opened
    path, manifest = str(opened.path), opened.manifest
    minimum = tuple(sorted(manifest.minimum_runtime.items()))
    found = tuple(one for of, one in runs if of == path)
    return BundleNeeds(path, manifest.scheme, manifest.model_format, minimum, found)


def _memory(here: machine.Machine) -> Iterator[str]:
    gib = 2**30
    free = here.available_bytes
    free_text = "" if free is None else f"{free / gib:.1f} GiB free of "
    yield f"{free_text}{here.memory_bytes / gib:.1f} GiB" if here.memory_bytes else "not told"
    if here.memory_limit_bytes is not None:
        yield f"limit of this process {here.memory_limit_bytes / gib:.1f} GiB"


def install_line(engines: Sequence[Finding], needs: Sequence[BundleNeeds], has_pillow: bool) -> str:
    """What is there but too old or broken is told where it is; this is for what is absent."""
    formats = {one.model_format for one in needs if not one.can_run and not one.engines}
    if not needs and not any(one.state == "works" for one in engines):
        formats = {"tflite"}
    advice = [
        install_advice(kind, sys.version_info[:2], sys.platform, machine.wheel_machine())
        for kind in ("tflite", "onnx")
        if kind in formats
    ]
    extras = [found[1] for found in (re.search(r"\[(\w+)\]", one) for one in advice) if found]
    if len(extras) < len(advice):
        return next(one for one in advice if "[" not in one)
    extras += [] if has_pillow else ["image"]
    if not extras:
        return ""
    pinned = ' "numpy<2"' if any("numpy<2" in one for one in advice) else ""
    return f'{_pip()} install "smidgen-runtime[{",".join(extras)}]"{pinned}'


def _pip() -> str:
    """PEP 668: a distribution's own Python refuses pip outside of a virtual environment."""
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    if sys.prefix == sys.base_prefix and marker.exists():
        return "python3 -m venv ~/smidgen && ~/smidgen/bin/pip"
    return "pip"
