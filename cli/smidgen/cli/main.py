"""Where the process starts. Kept tiny, so that Ctrl-C is caught from the first moment on."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main() -> int:
    """The ``smidgen`` command on this process's arguments; its exit status."""
    try:
        from smidgen.cli.interrupts import take_signals

        take_signals()
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        # Only while the lines above were imported: run() handles every later one.
        return 130


def run(argv: Sequence[str]) -> int:
    """Parse ``argv``, do what it says, and turn any error into one line; the exit status."""
    try:
        from smidgen.cli.commands import dispatch
        from smidgen.runtime import streams

        streams.prepare()
        status = dispatch(argv)
        sys.stdout.flush()
        return status
    except BaseException as error:
        from smidgen.cli.endings import ending

        return ending(error, argv)
