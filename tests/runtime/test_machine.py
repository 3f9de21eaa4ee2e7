"""What the machine tells, from trees of files as Linux has them, and from sysctl's lines."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from smidgen.runtime import machine

CGROUP_1 = """\
4:memory:/docker/abc
2:cpu,cpuacct:/docker/abc
0::/
"""
SYSCTL = """\
hw.memsize: 17179869184
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
machdep.cpu.brand_string: Apple M1
"""
SYSCTL_INTEL = """\
machdep.cpu.brand_string: Intel(R) Core(TM) i7
machdep.cpu.features: FPU SSE4.1 AVX1.0
machdep.cpu.leaf7_features: AVX2 AVX512F AVX512VNNI
"""


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "proc", tmp_path / "sys"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_nothing_can_be_read(trees: tuple[Path, Path]) -> None:
    found = machine.gather(*trees)
    assert (found.cpu_flags, found.memory_bytes, found.available_bytes) == ((), 0, None)
    assert (found.governor, found.temperature_celsius, found.cpu_limit) == ("", None, None)
    assert found.usable_threads == found.usable_cores >= 1


def test_a_raspberry_pi(trees: tuple[Path, Path]) -> None:
    proc, sys = trees
    cpu = "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\nModel\t: Raspberry Pi 5 Model B\n"
    write(proc, {"cpuinfo": cpu, "meminfo": "MemTotal: 4096 kB\nMemAvailable:  1024 kB\n"})
    write(
        sys,
        {
            "devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "class/thermal/thermal_zone0/temp": "61250\n",
            "class/thermal/thermal_zone1/temp": "-274000\n",
            "class/hwmon/hwmon0/temp1_input": "99000\n",
        },
    )
    found = machine.gather(proc, sys)
    assert found.cpu_model == "Raspberry Pi 5 Model B"
    assert found.cpu_flags == ("asimd", "asimddp")
    assert (found.memory_bytes, found.available_bytes) == (4096 * 1024, 1024 * 1024)
    assert (found.governor, found.temperature_celsius) == ("ondemand", 61.25)


def test_heat_of_a_pc(trees: tuple[Path, Path]) -> None:
    write(trees[1], {"class/hwmon/hwmon0/temp1_input": "48000\n", "class/thermal/x": ""})
    assert machine.gather(*trees).temperature_celsius == 48.0


def test_limits_of_a_container(trees: tuple[Path, Path]) -> None:
    """Version 2: the lowest limit from the own group to the top counts."""
    proc, sys = trees
    write(proc, {"self/cgroup": "0::/outer/inner\n"})
    write(
        sys / "fs/cgroup",
        {
            "outer/inner/cpu.max": "max 100000\n",
            "outer/cpu.max": "150000 100000\n",
            "outer/inner/memory.max": "536870912\n",
            "outer/memory.max": "max\n",
        },
    )
    found = machine.gather(proc, sys)
    assert (found.cpu_limit, found.memory_limit_bytes) == (1.5, 512 << 20)


def test_limits_of_version_1(trees: tuple[Path, Path]) -> None:
    """Docker's path is the host's; inside, the group is mounted as the top."""
    proc, sys = trees
    write(proc, {"self/cgroup": CGROUP_1})
    write(
        sys / "fs/cgroup",
        {
            "cpu/cpu.cfs_quota_us": "50000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    found = machine.gather(proc, sys)
    assert (found.cpu_limit, found.memory_limit_bytes) == (0.5, None)
    assert found.usable_threads == 1


@pytest.mark.parametrize(("limit", "threads"), [(None, 4), (2.6, 3), (0.2, 1), (9.0, 4)])
def test_threads_that_can_run_at_once(
    trees: tuple[Path, Path], limit: float | None, threads: int
) -> None:
    found = dataclasses.replace(machine.gather(*trees), usable_cores=4, cpu_limit=limit)
    assert found.usable_threads == threads


def test_macos() -> None:
    model, flags, memory = machine.of_sysctl(SYSCTL)
    assert (model, memory) == ("Apple M1", 16 << 30)
    assert flags == {"asimd", "asimddp"}
    assert machine.of_sysctl(SYSCTL_INTEL)[1] > {"sse4_1", "avx", "avx2", "avx512_vnni"}
    assert machine.of_sysctl("") == ("", set(), 0)
