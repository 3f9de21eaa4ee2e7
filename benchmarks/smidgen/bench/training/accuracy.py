"""Minutes from a folder of images to an accuracy: ``smidgen train`` and a plain timm fine-tune.

Both start as processes of their own from the same files, the same ImageNet weights and the same
splits: ours is ``smidgen train FOLDER`` with its defaults (and ``--train-flags``), with no decoded
images left from before; timm's is ``timm_finetune``, on the ``dataset.json`` that ours wrote. They
run one after the other. Of each epoch the validation top-1 is kept, and when it was there, in
seconds since the process was started; at the end the test top-1 of the epoch that was best.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.facts import DeviceFacts
from smidgen.bench.training.contenders import linked_rooms
from smidgen.train.models.weights_file import weights_path

_POLL_S = 0.2


@dataclass(frozen=True)
class Epoch:
    """``val_top1`` (0..1) of an epoch, ``seconds`` after the process was started."""

    seconds: float
    val_top1: float


@dataclass(frozen=True)
class Race:
    """One training: its epochs, its end in seconds, and its accuracy on the test split."""

    name: str
    command: tuple[str, ...]
    epochs: tuple[Epoch, ...]
    seconds: float
    test_top1_percent: float
    test_images: int

    def seconds_to(self, percent: float) -> float | None:
        """When validation first was at ``percent`` or above; None: never."""
        reached = (epoch.seconds for epoch in self.epochs if 100 * epoch.val_top1 >= percent)
        return next(reached, None)

    @property
    def best_percent(self) -> float:
        """The best validation top-1."""
        return 100 * max((epoch.val_top1 for epoch in self.epochs), default=0.0)


def measure(
    arguments: argparse.Namespace, facts: DeviceFacts
) -> tuple[str, dict[str, Any], list[str]]:
    """Both trainings, as text, as raw data, and what failed. Raises ContenderFailed."""
    with tempfile.TemporaryDirectory(prefix="smidgen-race-") as folder:
        place = Path(folder)
        ours = _ours(arguments, place)
        races, failures = [ours], []
        if arguments.timm_python is not None:
            try:
                races.append(_timm(arguments, place, facts.cores))
            except ContenderFailed as error:
                failures.append(str(error))
    raw = {"races": [dataclasses.asdict(race) for race in races]}
    return as_markdown(races, arguments.targets), raw, failures


def _ours(arguments: argparse.Namespace, place: Path) -> Race:
    flags = ["--image-size", str(arguments.image_size), *shlex.split(arguments.train_flags)]
    run = place / "run"
    command = [sys.executable, "-m", "smidgen.cli", "train", str(arguments.folder), *flags]
    command += ["--out", str(run)]
    environment = {"SMIDGEN_CACHE": str(place / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    seconds, epochs = watched(command, environment, run / "metrics.jsonl")
    return _race("smidgen train", command, run, epochs, seconds)


def _timm(arguments: argparse.Namespace, place: Path, threads: int) -> Race:
    out = place / "timm"
    settings = {
        "dataset": str(place / "run" / "dataset.json"),
        "out": str(out),
        "weights": str(weights_path("efficientnet-lite0", "imagenet")),
        "image_size": arguments.image_size,
        "batch_size": arguments.batch_size,
        "epochs": arguments.epochs,
        "threads": threads,
    }
    command = [str(arguments.timm_python), "-m", "smidgen.bench.training.timm_finetune"]
    command.append(json.dumps(settings))
    environment = {"PYTHONPATH": str(linked_rooms(place / "rooms"))}
    seconds, epochs = watched(command, environment, out / "metrics.jsonl")
    return _race(f"timm, {arguments.epochs} epochs", command, out, epochs, seconds)


def _race(
    name: str, command: Sequence[str], folder: Path, epochs: Sequence[Epoch], seconds: float
) -> Race:
    test = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"))
    return Race(name, tuple(command), tuple(epochs), seconds, test["top1_percent"], test["images"])


def watched(
    command: Sequence[str],
    environment: Mapping[str, str],
    metrics: Path,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[float, list[Epoch]]:
    """Run a training; its seconds, and when each line came into its file ``metrics``.

    Raises:
        ContenderFailed: it ended with another status than 0.
    """
    epochs: list[Epoch] = []

    def look() -> None:
        text = metrics.read_text(encoding="utf-8") if metrics.is_file() else ""
        whole = text.splitlines()[: text.count("\n")]
        for line in whole[len(epochs) :]:
            epochs.append(Epoch(clock() - began, json.loads(line)["val_top1"]))

    with tempfile.TemporaryFile() as said:
        began = clock()
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, **environment},
        ) as process:
            while True:
                try:
                    status = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    look()
        seconds = clock() - began
        look()
        if status != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise ContenderFailed(f"{shlex.join(command[:4])} ...: {lines[-1].strip()}")
    return seconds, epochs


def as_markdown(races: Sequence[Race], targets: Sequence[float]) -> str:
    """One table: minutes to each target, to the best that all reached, and to the end."""
    shared = min(race.best_percent for race in races)
    shown = sorted({*targets, shared})
    columns = [f"{target:.4g} % after, min" for target in shown]
    lines = [
        f"| training | {' | '.join(columns)} | end, min | best validation | test top-1 |",
        f"|---|{'---:|' * (len(columns) + 3)}",
    ]
    for race in races:
        cells = [_minutes(race.seconds_to(target)) for target in shown]
        lines.append(
            f"| {race.name} | {' | '.join(cells)} | {_minutes(race.seconds)} "
            f"| {race.best_percent:.2f} % | {race.test_top1_percent:.2f} % |"
        )
    images = races[0].test_images
    return "\n".join(lines) + f"\n\nThe percentages are of validation; {images} test images.\n"


def _minutes(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds / 60:.2f}"
