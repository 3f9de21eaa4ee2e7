"""What a measurement must say about the machine that it was taken on.

Read from ``/proc`` and ``/sys`` where there are such folders (Linux); elsewhere from Python's
``platform`` module, with 0 or an empty text for what cannot be known.
"""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

FLAGS_OF_INTEREST = (
    # x86: what int8 and float kernels choose between
    "sse4_1",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    # arm
    "neon",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)


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
    cpu = _cpuinfo(_read(proc / "cpuinfo"))
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return DeviceFacts(
        host=socket.gethostname(),
        cpu_model=_cpu_model(cpu, _read(proc / "device-tree" / "model")),
        cores=_usable_cores(),
        cpu_flags=tuple(flag for flag in FLAGS_OF_INTEREST if flag in flags),
        memory_bytes=_memory_bytes(_read(proc / "meminfo")),
        architecture=platform.machine(),
        os=_os_name(),
        kernel=platform.release(),
        python=platform.python_version(),
        governor=_read(sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        load_average_1min=_load_average(_read(proc / "loadavg")),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(text: str) -> dict[str, str]:
    """The keys of ``/proc/cpuinfo``, each with its first value."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _cpu_model(cpu: dict[str, str], board: str) -> str:
    """x86 names the CPU; on ARM boards the device tree or the ``Model`` line names the board."""
    name = cpu.get("model name") or cpu.get("Model") or board.strip("\0\n ") or cpu.get("Hardware")
    return name or platform.processor()


def _usable_cores() -> int:
    """The cores that this process may use, not all that the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def _memory_bytes(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except (OSError, AttributeError):
        return f"{platform.system()} {platform.release()}".strip()


def _load_average(text: str) -> float:
    if text:
        return float(text.split(maxsplit=1)[0])
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return 0.0
