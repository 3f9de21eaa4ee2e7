"""The process in which an isolated engine runs, and the protocol that ``isolation`` speaks with it.

A message is a header (``smid``, kind, seconds that the answer may take, length of the body; little
endian) and the body: texts as UTF-8 JSON, arrays as their raw bytes behind their sizes. One answer
follows each request. Nothing is unpickled or evaluated.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Union

from smidgen.runtime.errors import EngineError, EngineMissing

if TYPE_CHECKING:
    from smidgen.runtime.engine import Engine, Session

START, OPEN, RUN, DONE, FAILED, MISSING = range(1, 7)
MAX_TEXT_BYTES = 4096
SIZES = struct.Struct("<3I")
"""START, OPEN: lengths of two texts, 0; RUN: pictures, height, width; its answer: rows, columns."""
_HEADER = struct.Struct("<4sB3xfQ")
_MAGIC = b"smid"
_GRACE_S = 2.0
_FREE_BYTES = 512 << 20
_MODEL_FACTOR, _BYTES_A_PIXEL, _STACK_BYTES = 6, 256, 16 << 20

Buffer = Union[bytes, bytearray, memoryview]


def send(stream: io.RawIOBase, kind: int, limit_s: float, *pieces: Buffer) -> None:
    """Write one message. Raises OSError when nobody reads any more."""
    views = [memoryview(piece).cast("B") for piece in pieces]
    header = _HEADER.pack(_MAGIC, kind, limit_s, sum(len(view) for view in views))
    for view in (memoryview(header), *views):
        rest = view
        while rest:
            rest = rest[stream.write(rest) or 0 :]


def receive(stream: io.RawIOBase, most: int) -> tuple[int, float, bytearray]:
    """Read one message: kind, seconds, body.

    Raises:
        EOFError: the other side is gone.
        ValueError: no message of this protocol, or a body of more than ``most`` bytes.
    """
    magic, kind, limit_s, length = _HEADER.unpack(_exactly(stream, _HEADER.size))
    if magic != _MAGIC or length > most:
        raise ValueError(f"{length} bytes announced by {magic!r}")
    return kind, limit_s, _exactly(stream, length)


def _exactly(stream: io.RawIOBase, length: int) -> bytearray:
    found = bytearray(length)
    rest = memoryview(found)
    while rest:
        count = stream.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return found


def main() -> None:
    """Serve until the other side is gone. The protocol alone has the standard pipes."""
    requests, replies = (io.FileIO(os.dup(handle), mode) for handle, mode in ((0, "r"), (1, "w")))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints
    _prepare_signals()
    server = _Server()
    with suppress(EOFError, OSError):
        while True:
            kind, limit_s, body = receive(requests, sys.maxsize)
            with suppress(AttributeError, ImportError):  # Windows
                import signal

                signal.setitimer(signal.ITIMER_REAL, limit_s + _GRACE_S)
            try:
                answer: tuple[Buffer, ...] = server.answer(kind, body)
                status = DONE
            except Exception as error:
                status = MISSING if isinstance(error, EngineMissing) else FAILED
                kind_of = "" if isinstance(error, EngineError) else f"{type(error).__name__}: "
                text = f"{kind_of}{error}"
                answer = (text.encode("utf-8", "replace")[:MAX_TEXT_BYTES],)
            with suppress(AttributeError, ImportError):
                signal.setitimer(signal.ITIMER_REAL, 0)
            send(replies, status, 0.0, *answer)
    os._exit(0)  # without what a library does at exit: it may hang


def _prepare_signals() -> None:
    """Ctrl-C is for the host; the alarm must end this process though native code never returns."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(AttributeError):  # Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])


class _Server:
    """The engine, and its session when there is one."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._session: Any = None
        self._base_bytes = 0

    def answer(self, kind: int, body: bytearray) -> tuple[Buffer, ...]:
        """The body of the answer. Raises EngineError, or what a library raises."""
        first, second, third = SIZES.unpack_from(body)
        rest = memoryview(body)[SIZES.size :]
        if kind == RUN:
            return self._run((first, second, third), rest)
        texts = bytes(rest[:first]).decode("utf-8"), bytes(rest[first : first + second]).decode()
        if kind == START:
            self._engine = _engine_at(*texts)
            self._engine.load()
        else:
            self._open(texts, rest[first + second :])
        return ()

    def _open(self, texts: tuple[str, str], data: memoryview) -> None:
        import json

        from smidgen.runtime.engine import EngineOptions
        from smidgen.runtime.manifest import Manifest
        from smidgen.runtime.schema import build

        options = build(EngineOptions, json.loads(texts[0]))
        self._session = None
        threads = options.threads * _STACK_BYTES
        self._base_bytes = _FREE_BYTES + _MODEL_FACTOR * len(data) + threads
        _limit_memory(self._base_bytes)
        self._session = self._engine.open(bytes(data), Manifest.from_json(texts[1]), options)

    def _run(self, shape: tuple[int, int, int], data: memoryview) -> tuple[Buffer, ...]:
        import numpy as np

        session: Session = self._session
        pixels = np.frombuffer(data, np.uint8).reshape(*shape, 3)
        _limit_memory(self._base_bytes + _BYTES_A_PIXEL * len(data) // 3)
        scores = np.ascontiguousarray(session.run(pixels), np.float32)
        rows, columns = scores.shape if scores.ndim == 2 else (scores.size, 1)
        return SIZES.pack(rows, columns, 0), scores.reshape(-1).data


def _engine_at(address: str, name: str) -> Engine:
    """``module:attribute``, where the attribute is a table of engines, or makes one."""
    import importlib

    module, _, attribute = address.partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    engine: Engine = found[name] if isinstance(found, dict) else found()
    return engine


def _limit_memory(most_bytes: int) -> None:
    """Let allocations beyond what there is now plus ``most_bytes`` fail, where Linux can do that.

    Private writable memory counts; what drivers of accelerators map does not.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            used = next(int(line.split()[1]) for line in stream if line.startswith("VmData:"))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + most_bytes, hard))
