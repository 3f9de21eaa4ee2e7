"""The state of an unfinished Run after one of its steps, in ``checkpoints/``.

``state.npz`` holds every variable of the trainee (weights, statistics, random states), the
optimizer's arrays, and the progress as JSON; it is replaced in one step, so that it is always that
of one moment. The best weights so far are in a file of their own, which ``state.npz`` names: the
two cannot disagree, whenever the process is killed.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.runtime.errors import SchemaError
from smidgen.runtime.files import replacing
from smidgen.runtime.schema import as_mapping, build
from smidgen.train.errors import RunError
from smidgen.train.run import EpochMetrics, best_epoch

STATE_FILE = "state.npz"
_STATE_KEY = "state_json"


@dataclass(frozen=True)
class Tally:
    """Sums over the steps of an epoch: of losses and hits of ``images`` images."""

    steps: int = 0
    images: int = 0
    loss: float = 0.0
    hits: float = 0.0
    seconds: float = 0.0

    def plus(self, images: int, loss: float, hits: float) -> Tally:
        """One step more; ``loss`` is the mean of its images."""
        return dataclasses.replace(
            self,
            steps=self.steps + 1,
            images=self.images + images,
            loss=self.loss + loss * images,
            hits=self.hits + hits,
        )

    @property
    def mean_loss(self) -> float:
        """Mean loss per image."""
        return self.loss / max(1, self.images)

    @property
    def top1(self) -> float:
        """Share of hits, 0..1."""
        return self.hits / max(1, self.images)


@dataclass(frozen=True)
class TrainingState:
    """How far training got: whole epochs, the epoch begun, and where the best weights are.

    ``stage`` names the stage that the optimizer's arrays belong to; ``total_steps`` counts all
    steps of the Run.
    """

    rows: tuple[EpochMetrics, ...] = ()
    best_row: int = -1
    stage: str = ""
    total_steps: int = 0
    tally: Tally = Tally()

    @property
    def best_file(self) -> str:
        """Name of the file with the best weights so far."""
        return f"best-{self.best_row + 1}.npz"

    def epochs_done(self, stage: str) -> int:
        """Whole epochs of ``stage``."""
        return sum(row.stage == stage for row in self.rows)

    def epochs_since_best(self, stage: str) -> int:
        """Whole epochs of ``stage`` since the best one of that stage."""
        rows = [row for row in self.rows if row.stage == stage]
        return len(rows) - 1 - best_epoch(rows) if rows else 0

    def after(self, row: EpochMetrics) -> TrainingState:
        """The state when an epoch is over. Better: higher validation top-1, or equal and a lower
        loss."""
        rows = (*self.rows, row)
        return dataclasses.replace(self, rows=rows, best_row=best_epoch(rows), tally=Tally())


@dataclass(frozen=True)
class Checkpoint:
    """A state with the arrays that belong to it."""

    state: TrainingState
    model: tuple[np.ndarray, ...]
    optimizer: tuple[np.ndarray, ...]


def save(
    folder: Path, checkpoint: Checkpoint, best_weights: Sequence[np.ndarray] | None = None
) -> None:
    """Write the checkpoint; first ``best_weights``, when an epoch has just ended as the best.

    Whatever else lies in ``folder`` goes: older best weights, and what a killed process left.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    state = checkpoint.state
    if best_weights is not None:
        _save_arrays(folder / state.best_file, {f"{i:05d}": a for i, a in enumerate(best_weights)})
    arrays = {f"model_{i:05d}": array for i, array in enumerate(checkpoint.model)}
    arrays |= {f"optimizer_{i:05d}": array for i, array in enumerate(checkpoint.optimizer)}
    text = json.dumps(as_mapping(state))
    arrays[_STATE_KEY] = np.frombuffer(text.encode("ascii"), np.uint8)
    _save_arrays(folder / STATE_FILE, arrays)
    for path in folder.iterdir():
        if path.name not in (STATE_FILE, state.best_file):
            path.unlink()


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``, or None. Raises RunError if it is damaged."""
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    arrays = _load_arrays(path)
    mapping: dict[str, Any] = json.loads(arrays.pop(_STATE_KEY).tobytes())
    try:
        state = build(TrainingState, mapping)
    except SchemaError as error:
        raise RunError(
            f"{path} is of another version of smidgen ({error}); delete {folder} to train from the "
            "beginning"
        ) from error
    return Checkpoint(
        state=state,
        model=tuple(arrays[name] for name in sorted(arrays) if name.startswith("model_")),
        optimizer=tuple(arrays[name] for name in sorted(arrays) if name.startswith("optimizer_")),
    )


def load_best(folder: Path, state: TrainingState) -> list[np.ndarray]:
    """The best weights so far, in the network's order. Raises RunError."""
    arrays = _load_arrays(folder / state.best_file)
    return [arrays[name] for name in sorted(arrays)]


def metrics_jsonl(rows: Sequence[EpochMetrics]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows)


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise RunError(
            f"cannot read {path} ({error}); delete {path.parent} to train from the beginning"
        ) from error
