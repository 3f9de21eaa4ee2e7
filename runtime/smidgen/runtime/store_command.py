"""``smidgen-runtime update`` and ``rollback``: the commands of a ModelStore."""

from __future__ import annotations

import argparse
import json
from typing import Any

from smidgen.runtime.store import Installed, ModelStore
from smidgen.runtime.streams import without_chatter


def change(options: argparse.Namespace) -> int:
    """Install a Bundle, or go back to the model before, and say which is current then."""
    one = ModelStore(options.store).rollback() if options.command == "rollback" else _new(options)
    facts: dict[str, Any] = {"path": str(one.path), "sha256": one.sha256}
    if options.json:
        print(json.dumps({**facts, "confirmed": one.confirmed}))
    else:
        print(f"{options.store}: now {one.path.name}")
    return 0


def _new(options: argparse.Namespace) -> Installed:
    with without_chatter():
        return ModelStore(options.store, keep=options.keep).install(
            options.model,
            trusted_key=options.trusted_key,
            backend=options.backend,
            isolate=options.isolate,
        )
