"""Emulated boards in build/boards: Debian root file systems for 64-bit and 32-bit ARM, and wheels.

    python3.11 tools/boards.py            make both, or say in one line why this machine cannot

Programs of a board run here through QEMU's user emulation, in a name space of their own (user,
mounts, binfmt_misc), so that nothing of this machine is changed: no package is installed, no
interpreter registered, no file outside build/ written. Needs Linux 6.7 or newer, root, and Debian's
``apt-get``, which fetches mmdebstrap, QEMU and the boards' packages from where it is set up to.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from installer import SetupError, Steps

REPO = Path(__file__).resolve().parent.parent
FOLDER = REPO / "build" / "boards"
HOME = "/home/pi"
SUITE = "bookworm"
PYTHON = "3.11"
_STAMP = "made-of"
_OLDEST_LINUX = (6, 7)
_BASE = ("bash", "coreutils", "libc-bin", "libstdc++6", "python3", "python3-venv")


@dataclass(frozen=True)
class Board:
    """One kind of board."""

    name: str
    architecture: str
    """Debian's name for it."""
    emulator: str
    elf: tuple[str, str]
    """Magic and mask of its programs' first 20 bytes, as binfmt_misc takes them."""
    packages: tuple[str, ...]
    locks: tuple[str, ...]
    """Names of the files ``locks/NAME.txt`` that hold what it installs from its wheels folder."""
    wheel_platforms: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it lives: the root file system in ``root``, wheels in ``wheels``."""
        return FOLDER / self.name


def _elf(bits: int, machine: int) -> tuple[str, str]:
    """Little-endian Linux programs and shared objects (ELF: gABI, "ELF Header")."""
    magic = rf"\x7fELF\x{bits // 32:02x}\x01\x01" + r"\x00" * 9 + rf"\x02\x00\x{machine:02x}\x00"
    mask = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
    return magic, mask


BOARDS = {
    "aarch64": Board(
        "aarch64",
        "arm64",
        "qemu-aarch64-static",
        _elf(64, 0xB7),
        _BASE,
        ("runtime-litert", "runtime-onnx"),
        ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64"),
    ),
    "armhf": Board(
        "armhf",
        "armhf",
        "qemu-arm-static",
        _elf(32, 0x28),
        (*_BASE, "python3-numpy", "python3-pil"),
        ("board-armhf",),
        ("manylinux_2_34_armv7l",),
    ),
}

_ENTER = r"""
set -e
root=$1 home=$2 rule=$3; shift 3
binfmt=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc binfmt_misc $binfmt
printf '%s' "$rule" > $binfmt/register
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$home" "$root/home/pi"
exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/home/pi LANG=C.UTF-8 \
    PIP_NO_INDEX=1 PIP_FIND_LINKS=/home/pi/wheels PIP_NO_COMPILE=1 \
    /bin/bash -ec 'cd; . /dev/stdin'
"""
"""Never /sys: LiteRT and ONNX Runtime read this machine's CPU there and crash."""


def login(board: Board, home: Path) -> list[str]:
    """The command that runs the bash script on its standard input on ``board``, as user would.

    ``home`` is the home folder ``/home/pi`` there; pip finds packages in its ``wheels`` folder and
    nowhere else. A failing line of the script ends it.
    """
    rule = ":smidgen:M::" + ":".join(board.elf) + f":{FOLDER / 'tools' / board.emulator}:OCF"
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _ENTER, "sh"]
    return [*apart, str(board.folder / "root"), str(home), rule]


def obstacle() -> str:
    """Why boards cannot be made or run on this machine, in one line; empty where they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"emulated boards need Linux on x86-64, this is {sys.platform} {platform.machine()}"
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if release < _OLDEST_LINUX:
        return f"emulated boards need Linux 6.7 (binfmt_misc in name spaces), this is {release}"
    if os.geteuid() != 0:
        return "mmdebstrap needs root to make a root file system, and this is another user"
    absent = [name for name in ("apt-get", "dpkg-deb", "perl", "unshare") if not shutil.which(name)]
    if absent:
        return (
            f"qemu-user-static and mmdebstrap cannot be had here: no {', '.join(absent)} (Debian)"
        )
    return ""


def ensure(board: Board, steps: Steps) -> None:
    """Make ``board`` unless it is there as wanted.

    Raises:
        SetupError: it could not be made; the text says why in one line.
    """
    locks = [REPO / "locks" / f"{name}.txt" for name in board.locks]
    digest = hashlib.sha256(f"{board}{SUITE}{PYTHON}".encode())
    for lock in locks:
        digest.update(lock.read_bytes())
    stamp = board.folder / _STAMP
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    steps.title(f"{board.folder.relative_to(REPO)}: an emulated {board.name} board")
    _fetch_tools(steps)
    fresh = board.folder.with_suffix(".new")
    for folder in (fresh, board.folder):
        shutil.rmtree(folder, ignore_errors=True)
    (fresh / "wheels").mkdir(parents=True)
    steps.run("wheels", _download(board, locks, fresh / "wheels"))
    options = [f"--architectures={board.architecture}", f"--include={','.join(board.packages)}"]
    options += ["--mode=root", "--variant=extract", SUITE]
    steps.run(
        "root file system",
        ["perl", FOLDER / "tools" / "mmdebstrap", *options, fresh / "root", _source()],
    )
    _link_alternatives(fresh / "root")
    (fresh / "root" / HOME[1:]).mkdir(parents=True)
    fresh.replace(board.folder)
    _probe(board)
    stamp.write_text(digest.hexdigest())


def _link_alternatives(root: Path) -> None:
    """The links that numpy's libraries would get from the packages' scripts, which do not run."""
    for library in root.glob("usr/lib/*/*/lib*.so.3"):
        if library.parent.name in ("blas", "lapack"):
            link = library.parent.parent / library.name
            link.symlink_to(Path(library.parent.name, library.name))


def _fetch_tools(steps: Steps) -> None:
    """mmdebstrap and the emulators, taken out of Debian's packages without installing them."""
    tools = FOLDER / "tools"
    emulators = [board.emulator for board in BOARDS.values()]
    if all((tools / name).is_file() for name in ("mmdebstrap", *emulators)):
        return
    fresh = FOLDER / "tools.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    fetch = f"cd '{fresh}' && apt-get download -q mmdebstrap qemu-user-static"
    steps.run("mmdebstrap and QEMU", ["sh", "-c", f"{fetch} || (apt-get update && {fetch})"])
    wanted = " ".join(f"./usr/bin/{name}" for name in ("mmdebstrap", *emulators))
    take = f"dpkg-deb --fsys-tarfile $deb | tar -x --strip-components=3 {wanted} || true"
    steps.run("unpacking", ["sh", "-c", f"cd '{fresh}' && for deb in *.deb; do {take}; done"])
    missing = [name for name in ("mmdebstrap", *emulators) if not (fresh / name).is_file()]
    if missing:
        raise SetupError(f"Debian's packages hold no {', '.join(missing)}: see {steps.log}")
    for deb in fresh.glob("*.deb"):
        deb.unlink()
    shutil.rmtree(tools, ignore_errors=True)
    fresh.replace(tools)


def _source() -> str:
    """The one line of apt's sources for a board: where this machine's apt gets Debian from.

    Raises:
        SetupError: it is not set up for Debian.
    """
    form = ["--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    listed = subprocess.run(
        ["apt-get", "indextargets", *form], capture_output=True, text=True, check=False
    )
    for line in listed.stdout.splitlines():
        origin, component, address, release = line.split()
        if (origin, component) == ("Debian", "main") and "-" not in release:
            return f"deb {address} {SUITE} main"
    raise SetupError("apt is not set up for Debian here: boards are made of its packages")


def _download(board: Board, locks: Sequence[Path], folder: Path) -> list[str | Path]:
    """The pip command that puts the board's locked wheels into ``folder``."""
    command: list[str | Path] = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    command += ["--implementation", "cp", "--python-version", PYTHON]
    for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for name in board.wheel_platforms:
        command += ["--platform", name]
    for lock in locks:
        command += ["-r", lock]
    return [*command, "-d", folder]


def _probe(board: Board) -> None:
    """Start the board's Python once."""
    home = board.folder / "wheels"
    done = subprocess.run(
        login(board, home),
        input=b"python3 -c 'import platform; print(platform.machine())'",
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SetupError(f"programs of a {board.name} board do not start here: {' '.join(said)}")


def main(names: Sequence[str]) -> int:
    """Make the named boards, or all; return the exit status, 0 also where none can be had here."""
    reason = obstacle()
    if reason:
        print(f"smidgen: {reason}: the tests on boards will skip", file=sys.stderr)
        return 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        for name in names or BOARDS:
            ensure(BOARDS[name], Steps(REPO / "build" / f"board-{name}.log"))
    except SetupError as error:
        print(f"smidgen: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
