"""The machine under the runtime: processor, memory, limits, heat.

Read from ``/proc`` and ``/sys`` where there are such folders (Linux), from ``sysctl`` on macOS;
elsewhere from Python's ``platform``. What cannot be known is empty, 0 or None; nothing raises.
"""

from __future__ import annotations

import os
import platform
import sys as python
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

FLAGS_OF_INTEREST = (
    # x86: what int8 and float kernels choose between
    "sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni",
    "avx512_bf16", "amx_int8",
    # arm; asimddp is the int8 dot product, asimdhp half precision
    "neon", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_MACOS_FLAGS = {
    "AdvSIMD": "asimd", "FEAT_DotProd": "asimddp", "FEAT_FP16": "asimdhp", "FEAT_I8MM": "i8mm",
    "FEAT_BF16": "bf16", "SSE4.1": "sse4_1", "AVX1.0": "avx", "AVX512VNNI": "avx512_vnni",
}  # fmt: skip
_NO_LIMIT = 1 << 60
"""A control group without a limit says a number near 2^63 (version 1)."""


@dataclass(frozen=True)
class Machine:
    """One machine at one moment, as this process sees it."""

    cpu_model: str
    architecture: str
    """Of the kernel: a 32-bit Python can run on ``aarch64`` (see ``wheel_machine``)."""
    os: str
    cpu_flags: tuple[str, ...]
    cores: int
    usable_cores: int
    """Those that this process may use (its affinity)."""
    cpu_limit: Optional[float]
    """Cores' worth of time that a control group (a container) grants; None: no limit known."""
    memory_bytes: int
    available_bytes: Optional[int]
    memory_limit_bytes: Optional[int]
    """The lowest of the control groups' limits and of ``ulimit -v``."""
    governor: str
    temperature_celsius: Optional[float]
    """The hottest sensor that the kernel names."""

    @property
    def usable_threads(self) -> int:
        """Threads that can run at once: the usable cores, or fewer where a group limits them."""
        limit = self.usable_cores if self.cpu_limit is None else max(1, round(self.cpu_limit))
        return max(1, min(self.usable_cores, limit))


def gather(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Machine:
    """The machine that this process runs on."""
    cpu = _pairs(_read(proc / "cpuinfo"))
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    memory = {key: _bytes(value) for key, value in _pairs(_read(proc / "meminfo")).items()}
    board = _read(proc / "device-tree" / "model").strip("\0\n ")
    model = cpu.get("model name") or cpu.get("Model") or board or cpu.get("Hardware") or ""
    total = memory.get("MemTotal", 0)
    if python.platform == "darwin":
        model, flags, total = of_sysctl(_sysctl())
    return Machine(
        cpu_model=model or ("" if cpu else platform.processor()),  # which starts ``uname``
        architecture=platform.machine(),
        os=_os_name(),
        cpu_flags=tuple(flag for flag in FLAGS_OF_INTEREST if flag in flags),
        cores=os.cpu_count() or 0,
        usable_cores=usable_cores(),
        cpu_limit=_cpu_limit(proc, sys),
        memory_bytes=total,
        available_bytes=memory.get("MemAvailable"),
        memory_limit_bytes=_memory_limit(proc, sys),
        governor=_read(sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        temperature_celsius=_temperature(sys),
    )


def usable_cores() -> int:
    """The cores that this process may use, not all that the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def wheel_machine() -> str:
    """The machine that wheels must be made for: a 32-bit Python runs on 64-bit kernels too."""
    machine = platform.machine()
    if python.maxsize > 2**32:
        return machine
    return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)


def of_sysctl(text: str) -> tuple[str, set[str], int]:
    """Model, flags by their Linux names and bytes of memory, from ``sysctl``'s lines (macOS)."""
    pairs = _pairs(text)
    names = [key.rpartition(".")[2] for key, value in pairs.items() if value == "1"]
    for key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        names += pairs.get(key, "").split()
    flags = {_MACOS_FLAGS.get(name, name.lower()) for name in names}
    return pairs.get("machdep.cpu.brand_string", ""), flags, _bytes(pairs.get("hw.memsize", ""))


def _sysctl() -> str:
    import subprocess

    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional", "hw.memsize"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _pairs(text: str) -> dict[str, str]:
    """The ``key : value`` lines, each key with its first value."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _bytes(text: str) -> int:
    """``2048 kB`` or a plain number; 0 for anything else."""
    words = text.split()
    number = int(words[0]) if words and words[0].isdigit() else 0
    return number * 1024 if words[1:] == ["kB"] else number


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except (OSError, AttributeError):
        return f"{platform.system()} {platform.release()}".strip()


def _groups(proc: Path, sys: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, versions 1 and 2, innermost first."""
    root = sys / "fs" / "cgroup"
    for line in _read(proc / "self" / "cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or (parts[1] and controller not in parts[1].split(",")):
            continue
        top = root / controller if parts[1] else root
        here = top / parts[2].strip("/")
        yield from (place for place in (here, *here.parents) if place.is_relative_to(top))


def _cpu_limit(proc: Path, sys: Path) -> Optional[float]:
    found = []
    for place in _groups(proc, sys, "cpu"):
        quota, _, period = _read(place / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _read(place / "cpu.cfs_quota_us").strip()
            period = _read(place / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _memory_limit(proc: Path, sys: Path) -> Optional[int]:
    found = []
    for place in _groups(proc, sys, "memory"):
        text = _read(place / "memory.max") or _read(place / "memory.limit_in_bytes")
        found.append(_bytes(text))
    try:
        import resource

        found.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    except (ImportError, OSError, ValueError):  # Windows has none
        pass
    return min((limit for limit in found if 0 < limit < _NO_LIMIT), default=None)


def _temperature(sys: Path) -> Optional[float]:
    places = (("class/thermal", "thermal_zone*/temp"), ("class/hwmon", "hwmon*/temp*_input"))
    for folder, pattern in places:
        found = [_read(path).strip() for path in sorted((sys / folder).glob(pattern))]
        degrees = [int(text) / 1000 for text in found if text.lstrip("-").isdigit()]
        plausible = [value for value in degrees if -40 < value < 150]
        if plausible:
            return max(plausible)
    return None
