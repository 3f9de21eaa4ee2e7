"""The state of an unfinished Run after its last whole epoch, in ``checkpoints/``.

``state.npz`` holds every variable of the training graph and of the optimizer (in Keras' order), and
the progress as JSON; it is replaced in one step, so that it is always that of a whole epoch. The
best weights so far are in a file of their own, which ``state.npz`` names: the two cannot disagree,
whenever the process is killed.
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

from smidgen.runtime.files import replacing
from smidgen.runtime.schema import as_mapping
from smidgen.train.errors import RunError
from smidgen.train.run import EpochMetrics

_STATE_FILE = "state.npz"
_STATE_KEY = "state_json"


@dataclass(frozen=True)
class TrainingState:
    """How far training got: the epochs so far, and where the best weights are."""

    rows: tuple[EpochMetrics, ...] = ()
    best_row: int = -1
    seconds: float = 0.0

    @property
    def best_file(self) -> str:
        """Name of the file with the best weights so far."""
        return f"best-{self.best_row + 1}.npz"

    def epochs_done(self, stage: str) -> int:
        """Whole epochs of ``stage``."""
        return sum(row.stage == stage for row in self.rows)

    def after(self, row: EpochMetrics) -> TrainingState:
        """The state one epoch later. Better: higher validation top-1, or as high at lower loss."""
        rows = (*self.rows, row)
        best = self.rows[self.best_row] if self.rows else None
        is_better = best is None or (-row.val_top1, row.val_loss) < (-best.val_top1, best.val_loss)
        return TrainingState(
            rows=rows,
            best_row=len(rows) - 1 if is_better else self.best_row,
            seconds=self.seconds + row.seconds,
        )


@dataclass(frozen=True)
class Checkpoint:
    """A state with the arrays that belong to it, in Keras' order of variables."""

    state: TrainingState
    model: tuple[np.ndarray, ...]
    optimizer: tuple[np.ndarray, ...]


def save(
    folder: Path, checkpoint: Checkpoint, best_weights: Sequence[np.ndarray] | None = None
) -> None:
    """Write the checkpoint; first ``best_weights``, when its last epoch is the best.

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
    _save_arrays(folder / _STATE_FILE, arrays)
    for path in folder.iterdir():
        if path.name not in (_STATE_FILE, state.best_file):
            path.unlink()


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``, or None. Raises RunError if it is damaged."""
    path = folder / _STATE_FILE
    if not path.is_file():
        return None
    arrays = _load_arrays(path)
    mapping: dict[str, Any] = json.loads(arrays.pop(_STATE_KEY).tobytes())
    rows = tuple(EpochMetrics(**row) for row in mapping.pop("rows"))
    return Checkpoint(
        state=TrainingState(rows=rows, **mapping),
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
