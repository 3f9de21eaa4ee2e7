"""What process 0 knows, in every process: where training starts, and what it ends with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smidgen.runtime.files import write_bytes
from smidgen.train.errors import RunError
from smidgen.train.fitting import checkpoint
from smidgen.train.fitting.training_loop import TrainingLoop
from smidgen.train.hosts import Group


def same_start(loop: TrainingLoop, group: Group) -> None:
    """Let every process go on from what process 0 has: a checkpoint, or its first weights.

    Random states are among it: what process 0 drew for its pictures, the others draw never.
    """
    if group.processes == 1:
        return
    if group.leads:
        checkpoint.save(loop.folder, loop.now())
    _share_file(loop.folder / checkpoint.STATE_FILE, group)
    if not group.leads:
        saved = checkpoint.load(loop.folder)
        if saved is None:
            raise RunError(f"{loop.folder} lost its checkpoint while training started; run again")
        loop.take_up(saved)


def best_weights(loop: TrainingLoop, group: Group) -> list[np.ndarray]:
    """The best weights so far, in the network's order. Raises RunError."""
    if group.processes > 1:
        _share_file(loop.folder / loop.state.best_file, group)
    return checkpoint.load_best(loop.folder, loop.state)


def _share_file(path: Path, group: Group) -> None:
    data = group.share(path.read_bytes() if group.leads else b"")
    if not group.leads:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
