"""What a measurement must say about the machine that it was taken on.

What the runtime's ``machine`` tells, and what only a measurement needs: host, kernel, load.
"""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

from smidgen.runtime import machine


@dataclass(frozen=True)
class DeviceFacts:
    """One machine at one moment."""

    host: str
    cpu_model: str
    cores: int
    cpu_flags: tuple[str, ...]
    memory_bytes: int
    architecture: str
    os: str
    kernel: str
    python: str
    governor: str
    load_average_1min: float

    def line(self) -> str:
        """One line for the head of a report, without the load; what is not known is left out."""
        parts = [
            self.cpu_model or "unknown CPU",
            f"{self.architecture}, {self.cores} cores",
            f"{self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else "",
            self.os,
            f"Python {self.python}",
            f"governor {self.governor}" if self.governor else "",
        ]
        return "; ".join(part for part in parts if part)


def gather(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> DeviceFacts:
    """The facts of the machine that this process runs on. Never raises for what is missing."""
    here = machine.gather(proc, sys)
    return DeviceFacts(
        host=socket.gethostname(),
        cpu_model=here.cpu_model,
        cores=here.usable_cores,
        cpu_flags=here.cpu_flags,
        memory_bytes=here.memory_bytes,
        architecture=here.architecture,
        os=here.os,
        kernel=platform.release(),
        python=platform.python_version(),
        governor=here.governor,
        load_average_1min=_load_average(proc / "loadavg"),
    )


def _load_average(file: Path) -> float:
    try:
        return float(file.read_text(encoding="ascii").split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return 0.0
