"""Runs uv or pip for ``environments.py``, shows each step, and says in one line what went wrong.

Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_TICK_SECONDS = 0.5
_TAIL_LINES = 5

# What uv and pip print for each kind of failure, with what a user can do about it. In this order:
# a full disk also breaks downloads, and a hash that differs is no network's fault.
_CAUSES = (
    (
        ("no space left on device", "disk quota exceeded"),
        "the disk is full: free some space and run again",
    ),
    (
        ("ensurepip is not available", "no module named venv", "no module named ensurepip"),
        "this Python came without venv: install it (Debian and Ubuntu: python3.11-venv), run again",
    ),
    (
        ("hash mismatch", "do not match the hashes"),
        "a downloaded package differs from the one that was locked: run again, and if that "
        "repeats, look at the registry or proxy in between",
    ),
    (
        (
            "temporary failure in name resolution",
            "name or service not known",
            "nodename nor servname",
            "dns error",
            "failed to establish a new connection",
            "connection refused",
            "network is unreachable",
            "error sending request",
            "tcp connect error",
            "connection reset",
            "connecttimeout",
            "read timed out",
            "operation timed out",
            "proxyerror",
            "cannot connect to proxy",
            "connection broken",
        ),
        "the package registry cannot be reached: look at the network or the proxy and run again",
    ),
    (
        ("no matching distribution found", "no solution found", "no wheels with a matching"),
        "a locked package has no wheel for this machine (Linux x86-64 and aarch64, macOS arm64 "
        "are known to have them), or the registry does not carry it",
    ),
)


class SetupError(Exception):
    """An environment cannot be made. ``str()`` is one line for a user."""


class Steps:
    """Prints each step with its seconds on stderr, and keeps what the installers say in a log."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def title(self, text: str) -> None:
        """Announce what the next steps are for."""
        print(text, file=sys.stderr, flush=True)

    def run(self, what: str, command: Sequence[str | Path]) -> None:
        """Run one command to its end, its output going to the log.

        Raises:
            SetupError: it failed; the text names the cause where it is a known one.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        print(f"  {what} ...", end="", file=sys.stderr, flush=True)
        with open(self.log, "ab") as log:
            log.write(("$ " + " ".join(map(str, command)) + "\n").encode())
            log.flush()
            begin = log.tell()
            status = self._wait(
                what,
                start,
                subprocess.Popen(
                    [str(word) for word in command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_clean_environment(),
                ),
            )
        print(f" {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
        if status != 0:
            with open(self.log, "rb") as log:
                log.seek(begin)
                said = log.read().decode("utf-8", "replace")
            raise SetupError(f"{cause_of(said)} (step: {what}; all of its words: {self.log})")

    @staticmethod
    def _wait(what: str, start: float, process: subprocess.Popen[bytes]) -> int:
        """Wait for the process, with running seconds where a person looks on."""
        try:
            while True:
                try:
                    return process.wait(_TICK_SECONDS)
                except subprocess.TimeoutExpired:
                    if sys.stderr.isatty():
                        seconds = time.monotonic() - start
                        print(
                            f"\r  {what} ... {seconds:.0f} s", end="", file=sys.stderr, flush=True
                        )
        except BaseException:
            print(file=sys.stderr)
            process.terminate()
            process.wait()
            raise


def cause_of(said: str) -> str:
    """The one line for a user, from what an installer said before it failed."""
    lowered = said.lower()
    for phrases, line in _CAUSES:
        if any(phrase in lowered for phrase in phrases):
            return line
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "the installer failed, its last words: " + " | ".join(lines[-_TAIL_LINES:])


def _clean_environment() -> dict[str, str]:
    """This process's environment without what would make an installer aim elsewhere."""
    aims = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    return {name: value for name, value in os.environ.items() if name not in aims}


class Installer:
    """One of the two programs that fill an environment, by its ``name``: ``uv`` or ``pip``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def choose(cls, wish: str) -> Installer:
        """The wished one; for ``auto`` uv where it is on the path and runs, pip otherwise.

        Raises:
            SetupError: uv is wished for by name and does not run.
        """
        runs = wish != "pip" and shutil.which("uv") is not None
        if runs:
            probe = subprocess.run(["uv", "--version"], capture_output=True, check=False)
            runs = probe.returncode == 0
        if wish == "uv" and not runs:
            raise SetupError("uv does not run here: install it, or leave --installer away")
        return cls("uv" if runs else "pip")

    def make(self, folder: Path, steps: Steps, base: Path) -> None:
        """Make a virtual environment in ``folder`` with the Python ``base``."""
        command: list[str | Path] = [base, "-m", "venv", folder]
        if self.name == "uv":
            command.append("--without-pip")
        steps.run(f"environment of {base}", command)

    def install_locked(self, python: Path, locks: list[Path], steps: Steps) -> None:
        """Install exactly what the lock files name, checked against their hashes.

        A lock file is complete, so nothing is resolved here (``--no-deps``).
        """
        count = sum(_count_packages(lock) for lock in locks)
        command: list[str | Path] = [*self._install(python), "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:"]
        for lock in locks:
            command += ["-r", lock]
        steps.run(f"{count} packages", command)

    def install_ours(
        self, python: Path, projects: list[Path], wheels: list[Path], steps: Steps
    ) -> None:
        """Install our own distributions: folders editable, wheels as they are; asks no registry."""
        command: list[str | Path] = [*self._install(python), "--no-deps", "--no-build-isolation"]
        command += ["--offline", "--reinstall"] if self.name == "uv" else ["--no-index"]
        if self.name == "pip":
            command.append("--force-reinstall")
        for project in projects:
            command += ["-e", project]
        steps.run("smidgen itself", [*command, *wheels])

    def _install(self, python: Path) -> list[str | Path]:
        if self.name == "uv":
            return ["uv", "pip", "install", "--python", python]
        options = ["--disable-pip-version-check", "--no-input", "--no-compile"]
        return [python, "-m", "pip", "install", *options]


def _count_packages(lock: Path) -> int:
    lines = lock.read_text(encoding="utf-8").splitlines()
    return sum("==" in line and not line.startswith((" ", "#")) for line in lines)
