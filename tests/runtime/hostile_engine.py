"""Engines that misbehave, for ``IsolatedEngine``'s ``address``: what they do, the model says.

The first bytes of the model name the deed for loading, the first pixel the one for running.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, NoReturn

import numpy as np

from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.fake import FakeEngine, brightness_scores
from smidgen.runtime.manifest import Manifest

ANSWER, SEGFAULT, EXIT, HANG, GARBAGE, ABORT, CHATTER, SHORT, NAN, LEAK, CLOSE, LONG = range(12)


def misbehave(deed: int) -> None:
    """Crash, hang, leave or answer garbage."""
    if deed == SEGFAULT:
        os.kill(os.getpid(), signal.SIGSEGV)
    if deed == ABORT:
        os.abort()
    if deed == EXIT:
        os._exit(3)
    if deed == HANG:
        _sleep()
    if deed == GARBAGE:
        for handle in range(3, 20):  # the pipe for answers is one of them
            try:
                os.write(handle, b"\x80\x04pickle" * 100)
            except OSError:
                continue
        _sleep()
    if deed == CHATTER:
        print("a library talks to standard output")
        os.write(1, b"INFO: native chatter\n")
        os.write(2, b"INFO: native chatter\n")
        sys.stdout.flush()
    if deed == LEAK:
        np.ones(3 << 30, np.uint8)
    if deed == CLOSE:
        os.closerange(3, 20)
        _sleep()


def _sleep() -> NoReturn:
    while True:
        time.sleep(1)


class HostileEngine(FakeEngine):
    """Satisfies ``Engine``."""

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Any:
        """See Engine."""
        del options
        misbehave(data[0] if len(data) == 1 else ANSWER)
        return HostileSession(len(manifest.labels))


class HostileSession:
    """Satisfies ``Session``."""

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def run(self, pixels: Any) -> Any:
        """See Session."""
        deed = int(pixels[0, 0, 0, 0])
        misbehave(deed)
        scores = brightness_scores(pixels, self._classes)
        if deed == SHORT:
            return scores[:, 1:]
        if deed == LONG:
            return np.repeat(scores, 5000, axis=1)
        return scores * np.nan if deed == NAN else scores

    def close(self) -> None:
        """See Session."""
