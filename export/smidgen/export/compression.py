"""The passes that change the float network, in their order, and what they made kept by content.

A pass may train for hours. Its result is kept in ``passes/`` of the export folder under a key over
everything that decides it, so a later export that differs only in what comes after (other formats,
another calibrator) starts from there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from smidgen.export.errors import SourceError
from smidgen.export.progress import stage
from smidgen.export.recipe import ExportPlan
from smidgen.export.versions import toolchain_versions
from smidgen.export.workshop import PassResult, Workshop
from smidgen.runtime.errors import SchemaError
from smidgen.runtime.files import replacing, write_text
from smidgen.runtime.manifest import PassRecord
from smidgen.runtime.schema import as_mapping, build
from smidgen.train.errors import WeightsError

_GENERATION = 2
"""Raised when a pass makes something else of the same input than before."""

PASSES_FOLDER = "passes"

_LINE = 80
"""Longer facts, as of every layer, are for the manifest and not for the terminal."""

Apply = Callable[[Any, ExportPlan, Workshop], PassResult]
"""A pass: network, plan and workshop to the changed network."""


class Compressed(NamedTuple):
    """The network after all passes, and a record of each."""

    network: Any
    records: tuple[PassRecord, ...]


def _channels(network: Any, plan: ExportPlan, workshop: Workshop) -> PassResult:
    from smidgen.export.pruning.channels import prune_channels

    return prune_channels(network, plan.channels, workshop)


def _sparsity(network: Any, plan: ExportPlan, workshop: Workshop) -> PassResult:
    from smidgen.export.guest.sparsity import sparsify

    return sparsify(network, plan.sparsity, workshop)


def _clustering(network: Any, plan: ExportPlan, workshop: Workshop) -> PassResult:
    from smidgen.export.guest.clustering import cluster

    return cluster(network, plan.clustering, workshop)


PASSES: Mapping[str, Apply] = {
    "channels": _channels,
    "sparsity": _sparsity,
    "clustering": _clustering,
}
"""Every pass that makes a float network of one, by the name of its table, in their order."""


def compress(
    load: Callable[[], Any],
    plan: ExportPlan,
    workshop: Workshop,
    folder: Path,
    passes: Mapping[str, Apply] = PASSES,
) -> Compressed:
    """Apply the passes of ``plan`` to the network that ``load`` gives.

    Args:
        load: the float network; called only where no kept result is nearer.
        plan: which passes, with which settings.
        workshop: what a pass works with.
        folder: where results are kept: ``<pass>-<key>.keras`` and ``.json``.
        passes: the table of passes.

    Raises:
        ExportError, TrainError: a pass cannot be done.
        OutputError: ``folder`` cannot be written to.
    """
    wanted = [name for name in passes if name in plan.passes]
    keys = [pass_key(workshop, plan, wanted[: index + 1]) for index in range(len(wanted))]
    done, network, records = _nearest(folder, wanted, keys)
    if wanted and workshop.source.training is None:
        raise SourceError(
            f"{' and '.join(wanted)} need training images to tune the network on, and "
            f"{workshop.source.source} has none: export a Run, or --model with --images"
        )
    network = load() if network is None else network
    for name, key in list(zip(wanted, keys))[done:]:
        with stage(workshop.progress, name, workshop.seconds):
            result = passes[name](network, plan, workshop)
        network, records = result.network, (*records, PassRecord(name, result.facts))
        _keep(folder, f"{name}-{key}", network, records)
        shutil.rmtree(workshop.work, ignore_errors=True)  # checkpoints of what is done now
        for fact, value in result.facts.items():
            if len(value) <= _LINE:
                workshop.progress.note(f"{name}: {fact.replace('_', ' ')} {value}")
    return Compressed(network, records)


def pass_key(workshop: Workshop, plan: ExportPlan, names: list[str]) -> str:
    """16 hexadecimal digits over everything that decides the network after these passes."""
    source = workshop.source
    training = source.training
    content = [
        _GENERATION,
        source.weights_sha256,
        as_mapping(source.normalization),
        as_mapping(source.preprocessing),
        None if training is None else [training.recipe.to_mapping(), training.dataset.sha256],
        [[name, as_mapping(getattr(plan, name))] for name in names],
        toolchain_versions(),
    ]
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _nearest(
    folder: Path, names: list[str], keys: list[str]
) -> tuple[int, Any, tuple[PassRecord, ...]]:
    """How many of the passes are done already, what they made, and their records."""
    for index in reversed(range(len(names))):
        path = folder / f"{names[index]}-{keys[index]}.keras"
        kept = _kept(path)
        if kept is not None:
            return index + 1, *kept
    return 0, None, ()


def _kept(path: Path) -> tuple[Any, tuple[PassRecord, ...]] | None:
    from smidgen.train.models.weights import load_network

    try:
        entries = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        records = tuple(build(PassRecord, entry, where="pass") for entry in entries)
        return load_network(path), records
    except (OSError, ValueError, SchemaError, WeightsError):
        return None


def _keep(folder: Path, stem: str, network: Any, records: tuple[PassRecord, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{stem}.keras") as temporary:
        network.save(temporary)
    write_text(folder / f"{stem}.json", json.dumps(as_mapping(records), indent=2) + "\n")
