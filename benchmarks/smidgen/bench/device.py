"""A Device: any machine on which ``smidgen-runtime`` can be run.

Another kind of machine is one class that satisfies this Protocol; ``local.py`` is the shortest
example, ``fake.py`` the one for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from smidgen.bench.facts import DeviceFacts


class Device(Protocol):
    """Where Bundles are measured."""

    @property
    def name(self) -> str:
        """What reports call this Device."""

    def facts(self) -> DeviceFacts:
        """What the machine is, now (its load changes). Raises DeviceError."""

    def push(self, path: Path) -> str:
        """Bring a file to the Device; its path there. Raises DeviceError."""

    def run(self, argv: Sequence[str]) -> str:
        """Run ``python -m smidgen.runtime ARGV...`` there in a fresh process; its stdout.

        Raises:
            DeviceRunFailed: it ended with an error (the message carries its last line), was killed
                by a signal, or did not end in time.
        """
