"""The virtual environments of this repository: which there are, and how each is made.

An environment is made of lock files (exact versions with hashes) and of our own distributions.
A stamp inside it says what it was made of, and is written last: one without the right stamp is made
anew, so an interrupted set-up, a changed lock file or a moved folder all end well. Where only our
own distributions changed, only they are installed again.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import interpreters
from installer import Installer, SetupError, Steps

REPO = Path(__file__).resolve().parent.parent
STAMP = "smidgen-environment.json"


@dataclass(frozen=True)
class Environment:
    """One virtual environment of the repository."""

    purpose: str
    folder: str
    locks: tuple[str, ...]
    """Names of the files ``locks/NAME.txt``."""
    projects: tuple[str, ...]
    """Folders of the distributions that are installed editable."""
    need_bytes: int
    """Free disk that making it takes, the downloads' cache included."""
    version: str = ""
    """Of its Python, such as ``3.13``; empty: the one that runs this."""


MEBIBYTE = 1 << 20
OTHER_PYTHONS = ("3.9", "3.10", "3.12", "3.13")
"""What the runtime supports beside the Python of all other environments."""
ENVIRONMENTS = {
    "main": Environment(
        "the toolchain, its tests and the demo's images",
        ".venv",
        ("dev", "demo-data"),
        (".", "runtime"),
        4500 * MEBIBYTE,
    ),
    "jax": Environment(
        "training with JAX, without TensorFlow",
        ".venv-jax",
        ("jax",),
        (".", "runtime"),
        1300 * MEBIBYTE,
    ),
    "mediapipe": Environment(
        "MediaPipe's classifier, as another reader of our files",
        ".venv-mediapipe",
        ("mediapipe",),
        (),
        900 * MEBIBYTE,
    ),
    "openers": Environment(
        "OpenVINO and tflite-runtime, as other readers of our files",
        ".venv-openers",
        ("openers",),
        (),
        500 * MEBIBYTE,
    ),
    "rival-aeq": Environment(
        "ai-edge-quantizer, which the benchmark of quantizers compares with ours",
        ".venv-rival-aeq",
        ("rival-aeq",),
        (),
        600 * MEBIBYTE,
    ),
    "rival-nncf": Environment(
        "NNCF, which the benchmark of quantizers compares with ours",
        ".venv-rival-nncf",
        ("rival-nncf",),
        (),
        800 * MEBIBYTE,
    ),
    "runtime-litert": Environment(
        "a bare device with LiteRT", ".venv-runtime-litert", ("runtime-litert",), (), 250 * MEBIBYTE
    ),
    "runtime-onnx": Environment(
        "a bare device with ONNX Runtime",
        ".venv-runtime-onnx",
        ("runtime-onnx",),
        (),
        250 * MEBIBYTE,
    ),
    **{
        f"python{version}": Environment(
            f"the runtime on Python {version}",
            f".venv-python{version}",
            ("pythons",),
            (),
            250 * MEBIBYTE,
            version,
        )
        for version in OTHER_PYTHONS
    },
}


@dataclass(frozen=True)
class Stamp:
    """What an environment was made of, as two SHA-256 digests (64 hexadecimal digits each)."""

    packages: str
    ours: str

    @classmethod
    def read(cls, folder: Path) -> Stamp:
        """The stamp in ``folder``; empty digests where there is none or it is damaged."""
        try:
            found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
            return cls(str(found["packages"]), str(found["ours"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls("", "")

    def write(self, folder: Path) -> None:
        """Put the stamp into ``folder`` in one step."""
        temporary = folder / (STAMP + ".new")
        temporary.write_text(json.dumps({"packages": self.packages, "ours": self.ours}) + "\n")
        temporary.replace(folder / STAMP)


def ensure(
    environment: Environment,
    installer: Installer,
    steps: Steps,
    *,
    wheels: tuple[Path, ...] = (),
    repo: Path = REPO,
) -> Path:
    """Make ``environment`` in ``repo`` unless it is there as wanted; return its Python's path.

    Raises:
        SetupError: it could not be made; the text says why and what to do.
    """
    folder = repo / environment.folder
    python = folder / "bin" / "python"
    locks = [repo / "locks" / f"{name}.txt" for name in environment.locks]
    projects = [repo / project for project in environment.projects]
    base = _base_python(environment)
    wanted = _wanted_stamp(
        f"{sys.version}\n{sys.base_prefix}\n{base if environment.version else ''}{folder}\n"
        f"{installer.name}\n",
        locks,
        [*(project / "pyproject.toml" for project in projects), *wheels],
    )
    found = Stamp.read(folder)
    if found == wanted and python.exists():
        return python
    steps.title(f"{environment.folder}: {environment.purpose} (with {installer.name})")
    if found.packages != wanted.packages or not python.exists():
        _check_disk(environment, folder)
        _clear(folder)
        installer.make(folder, steps, base)
        installer.install_locked(python, locks, steps)
        Stamp(wanted.packages, "").write(folder)
    if projects or wheels:
        installer.install_ours(python, projects, list(wheels), steps)
    wanted.write(folder)
    return python


def _base_python(environment: Environment) -> Path:
    """The Python that the environment is made with."""
    if not environment.version:
        return Path(sys.executable)
    found = interpreters.find(environment.version)
    if found is None:
        raise SetupError(
            f"{environment.folder} needs Python {environment.version}, and this machine has none: "
            f"install it as python{environment.version} or with pyenv"
        )
    return found


def _wanted_stamp(maker: str, locks: list[Path], ours: list[Path]) -> Stamp:
    """The stamp of an environment made now, by ``maker``, of these files."""
    packages = hashlib.sha256(maker.encode())
    for path in locks:
        packages.update(path.read_bytes())
    own = hashlib.sha256(packages.digest())
    for path in ours:
        own.update(path.read_bytes())
    return Stamp(packages.hexdigest(), own.hexdigest())


def _check_disk(environment: Environment, folder: Path) -> None:
    """Refuse before anything is downloaded when the environment cannot fit."""
    free = shutil.disk_usage(folder.parent).free
    if folder.is_dir():
        free += sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    if free < environment.need_bytes:
        raise SetupError(
            f"{environment.folder} needs {environment.need_bytes / 1e9:.1f} GB of free disk, and "
            f"{folder.parent} has {free / 1e9:.1f} GB: free some space and run again, "
            "or clone to a larger disk"
        )


def _clear(folder: Path) -> None:
    """Leave an empty, marked environment folder. Never removes one that we did not make."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STAMP).exists():
        raise SetupError(
            f"{folder} is there and was not made by this script: move it away and run again"
        )
    if folder.is_dir():
        Stamp("", "").write(folder)
        for path in folder.iterdir():
            if path.name == STAMP:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    else:
        folder.mkdir()
    Stamp("", "").write(folder)


@contextlib.contextmanager
def _one_at_a_time(steps: Steps) -> Iterator[None]:
    """Hold the repository's set-up lock; it goes with the process, whatever ends it."""
    handle = os.open(REPO / "locks", os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            steps.title("waiting for another set-up of this folder to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main(arguments: list[str]) -> int:
    """Make the named environment and print its Python's path; return the exit status."""
    parser = argparse.ArgumentParser(prog="setup_env.py", description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", default="main", choices=sorted(ENVIRONMENTS))
    parser.add_argument(
        "--installer",
        choices=("auto", "uv", "pip"),
        default="auto",
        help="auto: uv where it runs, pip otherwise",
    )
    parser.add_argument(
        "--wheel",
        type=Path,
        action="append",
        default=[],
        help="a wheel of ours to install after the locked packages (may be repeated)",
    )
    given = parser.parse_args(arguments)
    environment = ENVIRONMENTS[given.name]
    steps = Steps(REPO / "build" / f"setup-{given.name}.log")
    wheels = tuple(path.resolve() for path in given.wheel)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _one_at_a_time(steps):
            installer = Installer.choose(given.installer)
            print(ensure(environment, installer, steps, wheels=wheels))
    except SetupError as error:
        print(f"smidgen: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"smidgen: the set-up stopped: {error}; mend that and run again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("smidgen: interrupted; run again to start this step anew", file=sys.stderr)
        return 130
    return 0
