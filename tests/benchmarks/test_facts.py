"""Machine facts from the text of /proc, and where there is none."""

from __future__ import annotations

from pathlib import Path

from smidgen.bench.facts import gather


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_x86_machine(tmp_path: Path) -> None:
    cpu = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu sse4_1 avx2 avx512_vnni\n"
    write(tmp_path, "cpuinfo", cpu + cpu.replace("Some", "Other"))
    write(tmp_path, "meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n")
    write(tmp_path, "loadavg", "1.25 0.5 0.1 1/99 1234\n")
    write(tmp_path, "devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    facts = gather(proc=tmp_path, sys=tmp_path)
    assert facts.cpu_model == "Some CPU @ 2 GHz"
    assert facts.cpu_flags == ("sse4_1", "avx2", "avx512_vnni")
    assert facts.memory_bytes == 2048 * 1024
    assert facts.load_average_1min == 1.25
    assert facts.governor == "powersave"
    assert "governor powersave" in facts.line()


def test_an_arm_board_is_named_by_its_device_tree(tmp_path: Path) -> None:
    write(
        tmp_path, "cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp\nHardware\t: BCM2835\n"
    )
    write(tmp_path, "device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    facts = gather(proc=tmp_path, sys=tmp_path)
    assert facts.cpu_model == "Raspberry Pi 4 Model B Rev 1.4"
    assert facts.cpu_flags == ("asimd", "asimddp")


def test_nothing_to_read_is_no_error(tmp_path: Path) -> None:
    facts = gather(proc=tmp_path / "none", sys=tmp_path / "none")
    assert facts.memory_bytes == 0
    assert facts.cpu_flags == ()
    assert facts.governor == ""
    assert facts.cores >= 1
    assert "GiB" not in facts.line()
