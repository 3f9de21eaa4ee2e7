"""The set-up: lock files, when an environment is made anew, and what is said when it cannot be."""

from __future__ import annotations

import contextlib
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import setup_env
from environments import ENVIRONMENTS, STAMP, Environment, Stamp, ensure
from installer import Installer, SetupError, Steps, cause_of

REPO = Path(__file__).resolve().parents[2]
LOCKS = sorted((REPO / "locks").glob("*.txt"))
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
PIN = re.compile(r"([a-z0-9-]+)==([^ ;]+)( ; .+?)?( \\)?")


def lock_faults(text: str) -> list[str]:
    """The lines of a lock that are neither an exact version nor a hash of one."""
    faults = [
        line for line in text.splitlines() if not (HASH.fullmatch(line) or PIN.fullmatch(line))
    ]
    pinned = re.findall(r"^[a-z0-9-]+==.*$", text, re.MULTILINE)
    return faults + [line for line in pinned if not line.endswith(" \\")]


def pins(text: str) -> dict[str, set[str]]:
    """Versions by package name; several where they depend on the platform."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\n]+)", text, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_exact_versions_and_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert lock_faults(text) == []
    direct = pins(lock.with_suffix(".in").read_text(encoding="utf-8"))
    assert {name: versions & pins(text).get(name, set()) for name, versions in direct.items()} == (
        direct
    ), "run `make lock`: the .in file says another version"


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "numpy>=2 \\",
        "numpy==2.4.6",
        "package @ https://example.org/package.whl",
        "    --hash=sha256:abc",
    ],
)
def test_a_planted_fault_in_a_lock_is_found(line: str) -> None:
    text = LOCKS[0].read_text(encoding="utf-8")
    assert line in lock_faults(text + line + "\n")


def test_what_runs_on_devices_is_what_the_toolchain_was_tested_with() -> None:
    whole = pins((REPO / "locks/dev.txt").read_text(encoding="utf-8"))
    for name in ("toolchain", "runtime-litert", "runtime-onnx"):
        part = pins((REPO / f"locks/{name}.txt").read_text(encoding="utf-8"))
        assert {package: whole.get(package) for package in part} == part


class FakeInstaller(Installer):
    """Writes an empty Python instead of installing; fails where it is told to."""

    def __init__(self, *, failing: str = "") -> None:
        super().__init__("fake")
        self.calls: list[str] = []
        self._failing = failing

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self._failing:
            raise KeyboardInterrupt

    def make(self, folder: Path, steps: Steps, base: Path) -> None:  # noqa: ARG002
        (folder / "bin").mkdir()
        (folder / "bin" / "python").touch()
        self._call("make")

    def install_locked(self, python: Path, locks: list[Path], steps: Steps) -> None:  # noqa: ARG002
        (python.parent / "half").touch()
        self._call("locked")

    def install_ours(
        self,
        python: Path,  # noqa: ARG002
        projects: list[Path],  # noqa: ARG002
        wheels: list[Path],  # noqa: ARG002
        steps: Steps,  # noqa: ARG002
    ) -> None:
        self._call("ours")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A repository with one lock and one distribution."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "some.txt").write_text("package==1 \\\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


SOME = Environment("a test", ".venv", ("some",), (".",), need_bytes=1)
MADE = ["make", "locked", "ours"]


def calls_of_ensure(
    house: Path, *, failing: str = "", environment: Environment = SOME
) -> list[str]:
    """What the installer was asked for; a KeyboardInterrupt of it is swallowed."""
    installer = FakeInstaller(failing=failing)
    with contextlib.suppress(KeyboardInterrupt):
        ensure(environment, installer, Steps(house / "log"), repo=house)
    return installer.calls


def test_the_second_time_nothing_is_done(house: Path) -> None:
    assert calls_of_ensure(house) == MADE
    assert calls_of_ensure(house) == []


@pytest.mark.parametrize("failing", ["make", "locked"])
def test_after_an_interruption_it_is_made_anew(house: Path, failing: str) -> None:
    assert calls_of_ensure(house, failing=failing)[-1] == failing
    (house / ".venv" / "bin" / "leftover").touch()
    assert calls_of_ensure(house) == MADE
    assert not (house / ".venv" / "bin" / "leftover").exists()
    assert calls_of_ensure(house) == []


def test_only_our_own_part_is_done_again_where_only_that_is_missing(house: Path) -> None:
    assert calls_of_ensure(house, failing="ours") == MADE
    assert calls_of_ensure(house) == ["ours"]
    (house / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert calls_of_ensure(house) == ["ours"]


def test_a_changed_lock_and_a_lost_python_make_it_anew(house: Path) -> None:
    calls_of_ensure(house)
    (house / "locks" / "some.txt").write_text("package==2 \\\n")
    assert calls_of_ensure(house) == MADE
    (house / ".venv" / "bin" / "python").unlink()
    assert calls_of_ensure(house) == MADE
    (house / ".venv" / STAMP).write_text('{"packages": ')
    assert Stamp.read(house / ".venv") == Stamp("", "")
    assert calls_of_ensure(house) == MADE


def test_a_folder_that_we_did_not_make_is_left_alone(house: Path) -> None:
    (house / ".venv").mkdir()
    (house / ".venv" / "mine").touch()
    with pytest.raises(SetupError, match="was not made by this script: move it away"):
        calls_of_ensure(house)
    assert (house / ".venv" / "mine").exists()


def test_too_little_disk_is_said_before_anything_is_made(house: Path) -> None:
    huge = replace(SOME, need_bytes=10**18)
    with pytest.raises(SetupError, match=r"\.venv needs 1000000000\.0 GB of free disk, and .* has"):
        calls_of_ensure(house, environment=huge)
    assert not (house / ".venv").exists()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("error sending request for url\n  Caused by: dns error: failed", "cannot be reached"),
        ("Failed to establish a new connection: [Errno -3] Temporary failure", "cannot be reached"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE", "differs from the one"),
        ("ERROR: No matching distribution found for numpy==0", "no wheel for this machine"),
        ("because ensurepip is not\navailable. ensurepip is not available", "without venv"),
        ("first\nsomething new broke", "its last words: first | something new broke"),
    ],
)
def test_an_installers_words_become_one_line(said: str, line: str) -> None:
    assert line in cause_of(said)
    assert "\n" not in cause_of(said)


def test_a_failed_step_keeps_all_words_in_the_log(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "log")
    with pytest.raises(SetupError, match=r"its last words: broken \(step: trying; .*log\)"):
        steps.run("trying", ["sh", "-c", "echo broken; exit 3"])
    assert "broken" in (tmp_path / "log").read_text()


def test_another_python_is_named_with_what_to_do() -> None:
    assert setup_env.complaint((3, 11), "python3.11") == ""
    said = setup_env.complaint((3, 10), "/usr/bin/python3")
    assert "Python 3.11 is needed, and /usr/bin/python3 is 3.10" in said
    assert "\n" not in said


def test_make_says_so_where_there_is_no_python() -> None:
    ended = subprocess.run(
        ["make", "PYTHON=no-such-python", "setup"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "Python 3.11 is needed, and 'no-such-python' does not run" in ended.stderr


def test_make_with_an_empty_python_searches_for_one() -> None:
    ended = subprocess.run(
        ["make", "-n", "PYTHON=", "setup"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert re.search(r"^\S*python\S* tools/setup_env\.py", ended.stdout, re.MULTILINE)


def test_a_python_that_is_not_here_is_named(house: Path) -> None:
    absent = replace(SOME, version="3.99")
    with pytest.raises(SetupError, match=r"needs Python 3\.99, and this machine has none: install"):
        calls_of_ensure(house, environment=absent)


def test_every_environment_has_its_locks() -> None:
    named = {name for environment in ENVIRONMENTS.values() for name in environment.locks}
    assert named <= {path.stem for path in LOCKS}
