"""Keeps the chatter of native libraries off a command's standard error.

LiteRT writes ``INFO: Created TensorFlow Lite XNNPACK delegate for CPU.`` to file descriptor 2 and
offers no switch. For commands only: a library must not redirect its host's descriptors.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_CHATTER = (b"INFO: Created TensorFlow Lite XNNPACK delegate",)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back file descriptor 2 in the block; afterwards pass on all but known chatter lines.

    For a single-threaded process. Where there is no descriptor 2 nothing is held back.
    """
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
