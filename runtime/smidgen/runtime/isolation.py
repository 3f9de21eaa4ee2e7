"""Engines in a child process: a model file that crashes or hangs its engine does not take the host.

The child is started anew (never forked), gets the model and the pixels through its standard pipes
and sends probabilities back (``engine_child`` has the protocol). It is killed when an answer takes
too long, and ends when its host does. This is no sandbox: the child runs with the host's rights, so
that a model which takes over the engine (instead of crashing it) can do what the host can.
Sign what you ship, and pass ``trusted_key``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np

from smidgen.runtime import engine_child as wire
from smidgen.runtime.engine import Engine, EngineOptions, Session
from smidgen.runtime.engine_checks import ModelFormat
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.errors import EngineFailed, EngineMissing
from smidgen.runtime.manifest import Manifest

if TYPE_CHECKING:
    import subprocess

    from smidgen.runtime.engine import Pixels, Scores

LIMIT_S = 10.0
_START_LIMIT_S = 60.0  # importing tensorflow on a slow card
_END_S = 2.0
_TABLE = "smidgen.runtime.engines:ENGINES"
_CODE = (
    "import sys; sys.path[:] = sys.argv[1:]; from smidgen.runtime.engine_child import main; main()"
)


def isolated(engine: Engine, *, limit_s: float = LIMIT_S) -> Engine:
    """The same engine, its sessions in child processes.

    ``open`` and ``run`` raise EngineFailed, and name the signal, where the child dies or does not
    answer in time; the next ``run`` starts a new child.

    Args:
        engine: one of ``engines.ENGINES``.
        limit_s: seconds that loading a model, or the inference of one picture, may take.

    Raises:
        EngineFailed: another engine object, which the child would not know how to make.
    """
    if isinstance(engine, IsolatedEngine):
        return engine
    if ENGINES.get(engine.name) != engine:
        raise EngineFailed(
            f"the engine object {engine.name!r} cannot be isolated: a child process runs engines "
            f"by name ({', '.join(ENGINES)}); name one of these, or do not isolate"
        )
    return IsolatedEngine(engine, limit_s)


@dataclass(frozen=True)
class IsolatedEngine:
    """Satisfies ``Engine``. ``address``: where the child finds it, ``module:attribute``."""

    inner: Engine
    limit_s: float = LIMIT_S
    address: str = _TABLE

    @property
    def name(self) -> str:
        """See Engine."""
        return self.inner.name

    @property
    def model_format(self) -> ModelFormat:
        """See Engine."""
        return self.inner.model_format

    def available(self) -> bool:
        """See Engine."""
        return self.inner.available()

    def load(self) -> None:
        """See Engine; in this process, to say early what is missing."""
        self.inner.load()

    def version(self) -> str:
        """See Engine."""
        return self.inner.version()

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine."""
        session = IsolatedSession(self, data, manifest, options)
        session.start()
        return session


class IsolatedSession:
    """Satisfies ``Session``: the model, and a child that has it loaded. Threads take turns."""

    def __init__(
        self, engine: IsolatedEngine, data: bytes, manifest: Manifest, options: EngineOptions
    ) -> None:
        self._engine, self._data, self._classes = engine, data, len(manifest.labels)
        self._texts = json.dumps(dataclasses.asdict(options)), manifest.to_json()
        self._child: Optional[Child] = None
        self._lock = threading.Lock()
        self._open = True

    def start(self) -> None:
        """Start the child and load the model. Raises EngineMissing or EngineFailed."""
        with self._lock:
            self._ready()

    def run(self, pixels: Pixels) -> Scores:
        """See Session."""
        with self._lock:
            if not self._open:
                raise EngineFailed(f"{self._engine.name}: the session is closed; open it again")
            if len(pixels) == 0:
                return np.zeros((0, self._classes), np.float32)
            child = self._ready()
            shape = wire.SIZES.pack(*pixels.shape[:3])
            most = wire.SIZES.size + 4 * len(pixels) * self._classes
            limit_s = self._engine.limit_s * len(pixels)
            pieces = (shape, np.ascontiguousarray(pixels).data)
            answer = child.ask(wire.RUN, limit_s, *pieces, most=most)
            rows, columns, _ = wire.SIZES.unpack_from(answer.ljust(wire.SIZES.size, b"\0"))
            if len(answer) != wire.SIZES.size + 4 * rows * columns:
                raise child.killed("answered with too few bytes")
            scores: Scores = np.frombuffer(answer, np.float32, offset=wire.SIZES.size)
            return scores.reshape(rows, columns)

    def close(self) -> None:
        """See Session."""
        with self._lock:
            self._open = False
            if self._child is not None:
                self._child.end()

    def _ready(self) -> Child:
        """The child; a new one where it is gone, or is that of who forked this process."""
        if self._child is None or not self._child.is_alive():
            self._child = Child(self._engine)
            try:
                self._child.open(self._data, self._texts)
            except BaseException:  # a child without a model is of no use
                self._child.end()
                raise
        return self._child


class Child:
    """One child process with its engine loaded."""

    def __init__(self, engine: IsolatedEngine) -> None:
        """Start it. Raises EngineMissing or EngineFailed."""
        self._name, self._limit_s, self._host = engine.name, engine.limit_s, os.getpid()
        self._process = _start(engine.name)
        self._end = weakref.finalize(self, _end, self._process, self._host)
        self._expired = False
        texts = [text.encode("utf-8") for text in (engine.address, engine.name)]
        sizes = wire.SIZES.pack(len(texts[0]), len(texts[1]), 0)
        try:
            self.ask(wire.START, max(_START_LIMIT_S, self._limit_s), sizes, *texts)
        except BaseException:
            self.end()
            raise

    def open(self, data: bytes, texts: tuple[str, str]) -> None:
        """Load a model in place of any other; ``texts``: options and manifest, as JSON.

        Raises EngineMissing or EngineFailed.
        """
        options, manifest = (text.encode("utf-8") for text in texts)
        sizes = wire.SIZES.pack(len(options), len(manifest), 0)
        self.ask(wire.OPEN, self._limit_s, sizes, options, manifest, data)

    def is_alive(self) -> bool:
        """Whether it can be asked, by this process."""
        return self._host == os.getpid() and self._end.alive and self._process.poll() is None

    def end(self) -> None:
        """Kill it and take its pipes back."""
        self._end()

    def ask(self, kind: int, limit_s: float, *pieces: wire.Buffer, most: int = 0) -> bytearray:
        """The answer of at most ``most`` bytes. Raises EngineMissing or EngineFailed."""
        requests, replies = self._process.stdin, self._process.stdout
        timer = threading.Timer(limit_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            wire.send(requests, kind, limit_s, *pieces)  # type: ignore[arg-type]
            status, _, body = wire.receive(replies, max(most, wire.MAX_TEXT_BYTES))  # type: ignore[arg-type]
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, ValueError):
                raise self.killed("answered with something else than probabilities") from error
            raise self._died(limit_s) from error
        except BaseException:  # Ctrl-C between request and answer: the next answer would be late
            self.end()
            raise
        finally:
            timer.cancel()
        if status == wire.DONE and len(body) <= most:
            return body
        if status not in (wire.FAILED, wire.MISSING):
            raise self.killed("answered with something else than probabilities")
        text = "".join(c if c.isprintable() else " " for c in body.decode("utf-8", "replace"))
        raise (EngineMissing if status == wire.MISSING else EngineFailed)(text)

    def killed(self, what: str) -> EngineFailed:
        """End it; the error to raise."""
        self.end()
        return EngineFailed(
            f"{self._name}: the process that runs the model {what}; the file may be damaged or "
            "hostile: copy or export it again"
        )

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _died(self, limit_s: float) -> EngineFailed:
        """Say how it ended, which it did or is about to do."""
        import signal
        import subprocess

        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # it closed its pipes, and lives
            status = 0
        what = f"ended by itself (exit status {status})"
        if self._expired:
            what = f"did not answer within {limit_s:g} s and was killed"
        elif status < 0:
            known = {one.value: one.name for one in signal.Signals}
            what = f"was ended by {known.get(-status, f'signal {-status}')}"
        return self.killed(what)


def _start(name: str) -> subprocess.Popen[bytes]:
    import subprocess

    if not sys.executable or getattr(sys, "frozen", False):
        raise EngineFailed(
            f"{name}: no Python program to start a child process with; isolate=False"
        )
    try:
        return subprocess.Popen(
            # -I: neither the current folder nor PYTHON* variables decide what the child imports.
            [sys.executable, "-I", "-c", _CODE, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    except OSError as error:
        raise EngineFailed(
            f"{name}: no child process for the engine ({error.strerror}); isolate=False"
        ) from error


def _end(process: subprocess.Popen[bytes], host: int) -> None:
    """Kill the child and wait for it, unless it is the child of who forked this process."""
    if os.getpid() != host:
        return
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
