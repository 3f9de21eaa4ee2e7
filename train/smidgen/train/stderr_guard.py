"""Standard error of a process of several hosts, without what JAX's C++ prints when one is lost.

A JAX process whose coordinator goes away, or is told that another process has, ends at once, from
C++, with an internal log and a stack dump: no Python code runs any more. So another, tiny process
stands between file descriptor 2 and the terminal while the processes belong together: it passes
everything on but that, of which it makes one line. It is this file, run as a program.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

_TOLD = b"\0smidgen: told\n"
_VERDICT = re.compile(
    rb"[EF]\d{4} .*(coordination_service|client\.h:\d+\] Terminating process)"
    rb"|[EF]\d{4} .*distributed_runtime"
)


class StderrGuard:
    """Stands on file descriptor 2 from its making to ``leave``, or to the end of the process."""

    def __init__(self, line: str) -> None:
        """``line`` is printed in place of JAX's dump."""
        sys.stderr.flush()
        self._real = os.dup(2)
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__, line],
            stdin=subprocess.PIPE, stdout=self._real, stderr=self._real, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        os.dup2(self._process.stdin.fileno(), 2)
        self._process.stdin.close()

    def told(self) -> None:
        """The line is said by somebody else."""
        sys.stderr.flush()
        os.write(2, _TOLD)

    def leave(self) -> None:
        """File descriptor 2 is what it was."""
        sys.stderr.flush()
        os.dup2(self._real, 2)
        os.close(self._real)
        self._process.wait()


class Sieve:
    """Passes lines on but those that tell of a lost process, which become one."""

    def __init__(self, line: str, write: Callable[[bytes], object]) -> None:
        self._line = line.encode("utf-8", "replace") + b"\n"
        self._write = write
        self._rest = b""
        self._is_told = False
        self._is_over = False

    def take(self, data: bytes) -> None:
        """More of the stream; what may become a line of JAX's waits for its end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._one(line + b"\n")
        if self._rest and not self._rest.startswith((b"E", b"F", b"\0")):
            self._one(self._rest)
            self._rest = b""

    def end(self) -> None:
        """The stream is over."""
        self._one(self._rest)

    def _one(self, line: bytes) -> None:
        if line == _TOLD:
            self._is_told = True
        elif self._is_over:
            return
        elif _VERDICT.match(line):
            self._is_over = True
            if not self._is_told:
                self._write(self._line)
        else:
            self._write(line)


def main() -> None:
    """Sieve standard input to standard error until it ends."""
    sieve = Sieve(sys.argv[1], lambda data: os.write(2, data))
    while data := os.read(0, 65536):
        sieve.take(data)
    sieve.end()


if __name__ == "__main__":
    main()
