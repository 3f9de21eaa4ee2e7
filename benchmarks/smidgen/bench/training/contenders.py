"""Who takes part: one explicit table of trainings for each stage and source of images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import smidgen.bench
import smidgen.runtime
import smidgen.train
from smidgen.bench.training.contest import Contender
from smidgen.bench.training.setting import Setting
from smidgen.train.models.weights_file import weights_path

Precision = Literal["float32", "bfloat16"]
CPU_CAN_BFLOAT16 = ("avx512_bf16", "amx_int8", "bf16")


@dataclass(frozen=True)
class Field:
    """What all contenders have in common. ``timm_python`` None leaves timm out."""

    base: Setting
    precisions: tuple[Precision, ...]
    timm_python: Path | None
    links: Path

    def contenders(self) -> list[Contender]:
        """Ours first: the others are compared with it."""
        return [*self._ours(), *self._keras(), *self._timm()]

    @property
    def reference(self) -> str:
        """The name of the contender that the others are compared with."""
        return f"smidgen, {self.precisions[0]}"

    def _ours(self) -> Iterator[Contender]:
        command = (sys.executable, "-m", "smidgen.bench.training.smidgen_worker")
        for setting in self._settings():
            yield self._contender(f"smidgen, {setting.precision}", command, setting)
        if self.base.stage == "head":
            first = replace(self.base, precision=self.precisions[0])
            name = f"smidgen, {first.precision}"
            once, kept = replace(first, stage="features-pass"), replace(first, stage="features")
            yield self._contender(f"{name}, the pass that computes features", command, once)
            yield self._contender(f"{name}, epochs on the features", command, kept)

    def _keras(self) -> Iterator[Contender]:
        command = (sys.executable, "-m", "smidgen.bench.training.keras_worker")
        setting = next(self._settings())
        by_default = self.base.backend == "jax"  # compiled there whatever is asked for
        for compiled in (True,) if by_default else (False, True):
            how = "jit_compile auto" if compiled else "jit_compile False"
            yield self._contender(
                f"keras fit, {setting.precision}, {how}",
                command,
                replace(setting, compiled=compiled),
            )

    def _timm(self) -> Iterator[Contender]:
        if self.timm_python is None:
            return
        weights = str(weights_path("efficientnet-lite0", "imagenet"))
        command = (str(self.timm_python), "-m", "smidgen.bench.training.timm_worker")
        for setting in self._settings():
            for compiled in (False, True) if self.base.backend == "jax" else (False,):
                how = ", torch.compile" if compiled else ""
                contender = self._contender(
                    f"timm, {setting.precision}{how}",
                    command,
                    replace(setting, compiled=compiled),
                    weights,
                )
                roots = {"PYTHONPATH": str(linked_rooms(self.links))}
                yield replace(contender, environment={**contender.environment, **roots})

    def _settings(self) -> Iterator[Setting]:
        for precision in self.precisions:
            yield replace(self.base, precision=precision)

    @staticmethod
    def _contender(name: str, command: tuple[str, ...], setting: Setting, *more: str) -> Contender:
        arguments = (*command, setting.to_json(), *more)
        return Contender(name, arguments, asleep(setting.threads))


def asleep(threads: int) -> dict[str, str]:
    """Environment of a process that uses ``threads`` and sleeps while it waits."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def linked_rooms(folder: Path) -> Path:
    """A folder on whose path other environments find our packages, and nothing else of ours."""
    home = folder / "smidgen"
    home.mkdir(parents=True, exist_ok=True)
    for room in (smidgen.bench, smidgen.runtime, smidgen.train):
        link = home / room.__name__.rpartition(".")[2]
        if not link.exists():
            link.symlink_to(Path(room.__path__[0]).resolve())
    return folder
