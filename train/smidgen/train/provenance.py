"""What made a Run: enough to make it again, and to tell afterwards why two Runs differ."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from smidgen.runtime.files import sha256_of_file
from smidgen.runtime.schema import as_mapping
from smidgen.train.data import SPLITS, Dataset
from smidgen.train.fitting.checkpoint import TrainingState
from smidgen.train.models.weights_file import weights_sha256
from smidgen.train.run import Run

_PACKAGES = ("smidgen", "smidgen-runtime", "keras", "tensorflow", "jax", "numpy", "pillow")


def provenance(run: Run, dataset: Dataset, state: TrainingState) -> dict[str, Any]:
    """Plain values for ``provenance.json``; ``run.model_path`` must exist."""
    recipe = run.recipe
    best = state.rows[state.best_row]
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "commit": source_commit(),
        "backend": keras.config.backend(),
        "devices": [str(device) for device in keras.distribution.list_devices()],
        "machine": f"{platform.system()} {platform.machine()}",
        "seeds": {"data": recipe.data.seed, "schedule": recipe.schedule.seed},
        "backbone": recipe.model.backbone,
        "start_weights_sha256": weights_sha256(recipe.model),
        "model_sha256": sha256_of_file(run.model_path),
        "data_sha256": dataset.sha256,
        "images": {name: len(dataset.split(name)) for name in SPLITS},
        "skipped_images": len(dataset.skipped),
        "ignored_files": dataset.ignored_files,
        "preprocessing": as_mapping(run.preprocessing()),
        "normalization": as_mapping(run.normalization),
        "best": {"stage": best.stage, "epoch": best.epoch, "val_top1": best.val_top1},
        "stage_seconds": {
            stage: round(sum(row.seconds for row in state.rows if row.stage == stage), 3)
            for stage in dict.fromkeys(row.stage for row in state.rows)
        },
    }


def source_commit() -> str:
    """The git commit of this source tree, ``-dirty`` if changed; empty outside a checkout."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(here.parent), *arguments],
            capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        commit = git("rev-parse", "HEAD")
        return commit + "-dirty" if git("status", "--porcelain", "-uno") else commit
    except (OSError, subprocess.SubprocessError):
        return ""


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
