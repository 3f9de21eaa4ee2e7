"""Standard input, output and error of a command: usable whatever the shell made of them.

For commands only: a library must not change its host's streams and descriptors.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

MAX_STDIN_BYTES = 1 << 28
_CHATTER = (b"INFO: Created TensorFlow Lite XNNPACK delegate",)


def prepare() -> None:
    """Make both streams take any text.

    A stream that the shell closed (``>&-``) goes nowhere; Python has None there, and would print
    errors to standard output instead. What a terminal cannot show, such as file names that are not
    UTF-8, is written with backslashes instead of ending the command.
    """
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Send what is still buffered nowhere, so that the interpreter's exit does not fail on it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def read_stdin() -> bytes:
    """What comes on standard input, up to MAX_STDIN_BYTES; nothing where the shell closed it."""
    return b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_STDIN_BYTES)


def print_table(rows: Iterable[tuple[str, str]]) -> None:
    """Headings, and what is under them, wrapped at the width of the terminal."""
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns) - 12
    for title, text in rows:
        lines = textwrap.wrap(
            text, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
        )
        print("\n".join(f"{title if not n else '':<11} {line}" for n, line in enumerate(lines)))


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back file descriptor 2 in the block; afterwards pass on all but known chatter lines.

    LiteRT writes ``INFO: Created TensorFlow Lite XNNPACK delegate for CPU.`` there and offers no
    switch. For a single-threaded process. Where there is no descriptor 2 nothing is held back.
    """
    import tempfile

    try:
        original = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            for line in held:
                if not line.startswith(_CHATTER):
                    os.write(2, line)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # open until the process ends
