"""Every way in which a command can end, as one line on stderr and an exit status."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from smidgen.cli.errors import UsageError
from smidgen.cli.interrupts import EXIT_INTERRUPTED, is_stage, was_interrupted
from smidgen.runtime import streams
from smidgen.runtime.errors import SchemaError, SmidgenError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_USAGE_OF = {"gate": 64}
"""Where 2 is an answer ("undecided"): EX_USAGE of sysexits.h instead."""
EXIT_BROKEN_PIPE = 141
DEBUG_VARIABLE = "SMIDGEN_DEBUG"

_RESUMED = ("run", "train", "export")
"""Commands that go on where they were interrupted; the others begin anew."""

_OUT_OF_MEMORY = (
    "out of memory: use a smaller --batch-size or --image-size, or close other programs"
)


def ending(error: BaseException, argv: Sequence[str]) -> int:
    """Say in one line how the command ended; its exit status."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    if isinstance(error, KeyboardInterrupt) or was_interrupted():
        if not is_stage():
            _say(str(error) or _interrupted(argv))
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        streams.drop_stdout()
        return EXIT_BROKEN_PIPE
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    _say(_line(error, argv))
    if isinstance(error, (UsageError, SchemaError)):
        return EXIT_USAGE_OF.get(next(iter(argv), ""), EXIT_USAGE)
    return EXIT_FAILED


def _interrupted(argv: Sequence[str]) -> str:
    goes_on = "; run the same command again to go on" if next(iter(argv), "") in _RESUMED else ""
    return f"interrupted{goes_on}"


def _line(error: BaseException, argv: Sequence[str]) -> str:
    if isinstance(error, SmidgenError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return _OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno is not None:
        return _os_line(error)
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("smidgen"):
        return (
            f"the package {error.name!r} is not installed, and this command needs it: install "
            "the whole toolchain (README, section Install)"
        )
    return _unexpected(error, argv)


def _os_line(error: OSError) -> str:
    place = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"disk full while writing{place}: free some space and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for{place}: choose another folder, or change its permissions"
    if error.errno == errno.ENOENT:
        return f"no such file or folder:{place}"
    return f"{error.strerror or error}:{place}"


def _unexpected(error: BaseException, argv: Sequence[str]) -> str:
    """A bug of ours: one line, and the traceback in a file to report it with."""
    kind = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    text = f"smidgen {' '.join(argv)}\n" + "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="smidgen-traceback-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError:
        return f"unexpected {kind}: please report it with what {DEBUG_VARIABLE}=1 shows"
    return f"unexpected {kind}: please report it with the file {path}"


def _say(line: str) -> None:
    """One line on stderr, wherever the progress bar stands."""
    try:
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
        print(f"smidgen: {line}", file=sys.stderr, flush=True)
    except OSError:
        pass
