"""Runs a candidate in a child process, and the float model in this one, on the same pictures.

A model file that kills its interpreter kills the child alone. Ctrl-C ends the child before this
process goes on; a child whose parent was killed ends when it next says how far it is. The child's
task and answers are files in a temporary folder (``TMPDIR``) that goes with the call.
"""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import CandidateFailed, SourceError
from smidgen.export.gate.judge_worker import STATUS_NO_SPACE, STATUS_PICTURE
from smidgen.export.pictures import Picture, pixel_batches
from smidgen.export.source import ChannelNormalization
from smidgen.runtime.errors import OutputError, SmidgenError
from smidgen.runtime.files import output_error, replacing
from smidgen.runtime.manifest import Preprocessing

WORKER = (sys.executable, "-P", "-m", "smidgen.export.gate.judge_worker")
STALL_SECONDS = 300.0
_BATCH = 32
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class Answers:
    """``scores``: ``(N, classes) float32`` probabilities; ``engine``: name and version."""

    scores: NDArray[np.float32]
    engine: str


@dataclass(frozen=True)
class Judge:
    """Runs candidates; ``worker`` is the command of the child, ``stall_seconds`` its patience.

    A child that says nothing for ``stall_seconds`` is killed.
    """

    worker: tuple[str, ...] = WORKER
    stall_seconds: float = STALL_SECONDS

    def answer_pictures(
        self, bundle: Path, pictures: Sequence[Picture], advance: Callable[[int], None]
    ) -> Answers:
        """The Bundle's answers on ``pictures``, decoded by the child as the manifest says.

        Raises:
            CandidateFailed: the child crashed, stalled, or refused the Bundle.
            SourceError: a picture is gone, was changed, or is no whole image.
            OutputError: no space for the answers.
        """
        task = {"pictures": [[item.path, item.sha256, item.turn] for item in pictures]}
        with _temporary_folder() as folder:
            return self._run(bundle, task, folder, len(pictures), advance)

    def answer_pixels(self, bundle: Path, pixels: NDArray[np.uint8]) -> Answers:
        """The Bundle's answers on input tensors ``(N, H, W, 3) uint8``.

        Raises CandidateFailed or OutputError, as ``answer_pictures``.
        """
        with _temporary_folder() as folder:
            path = folder / "pixels.npy"
            np.save(path, pixels)
            return self._run(bundle, {"pixels": str(path)}, folder, len(pixels), lambda _: None)

    def _run(
        self,
        bundle: Path,
        task: dict[str, Any],
        folder: Path,
        count: int,
        advance: Callable[[int], None],
    ) -> Answers:
        listed, out, complaints = folder / "task.json", folder / "out.npz", folder / "stderr.txt"
        listed.write_text(json.dumps(task), encoding="utf-8")
        command = [*self.worker, str(bundle), str(listed), str(out)]
        with open(complaints, "wb") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
            with _Watchdog(process, self.stall_seconds) as watchdog:
                for line in process.stdout or ():
                    watchdog.feed()
                    if line.startswith("done "):
                        advance(int(line[5:]))
                status = process.wait()
        if watchdog.has_bitten:
            raise CandidateFailed(
                f"{bundle.name} gave no answer for {self.stall_seconds:g} s in its own runtime and "
                "was stopped: the file is not usable"
            )
        if status != 0:
            raise _fault(status, bundle, complaints)
        return _read_answers(bundle, out, count)


class _Watchdog:
    """Kills a process that is not fed for a while, and in any case when the block ends."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.has_bitten = False
        self._process, self._seconds = process, seconds
        self._fed, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def feed(self) -> None:
        self._fed.set()

    def __enter__(self) -> _Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._fed.set()
        self._thread.join()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _watch(self) -> None:
        while self._fed.wait(self._seconds):
            if self._over.is_set():
                return
            self._fed.clear()
        self.has_bitten = True
        self._process.kill()


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for one child. Raises OutputError where nothing can be written."""
    try:
        with tempfile.TemporaryDirectory(prefix="smidgen-judge-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise output_error(Path(error.filename or tempfile.gettempdir()), error) from error
        raise


def _fault(status: int, bundle: Path, complaints: Path) -> SmidgenError:
    """What the child's exit status means."""
    lines = complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    if status == STATUS_NO_SPACE:
        return OutputError(
            f"no space in {tempfile.gettempdir()} for the answers of {bundle.name}: free some "
            "there, or name another place in TMPDIR, and run again"
        )
    if status == STATUS_PICTURE:
        return SourceError(last)
    if status >= 0:
        why = last or f"exit status {status}"
        return CandidateFailed(f"{bundle.name} failed in its own runtime: {why}")
    name = str(-status)
    with contextlib.suppress(ValueError):
        name = signal.Signals(-status).name
    if name in ("SIGKILL", "SIGTERM"):
        return CandidateFailed(
            f"{bundle.name} was not judged: its process was ended from outside ({name}), most "
            "often for lack of memory; close other programs and run again"
        )
    return CandidateFailed(
        f"{bundle.name} crashed its own runtime ({name}{'; ' + last if last else ''}): the file is "
        "not usable, try another scheme"
    )


def _read_answers(bundle: Path, out: Path, count: int) -> Answers:
    try:
        with np.load(out) as content:
            answers = Answers(content["scores"], str(content["engine"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CandidateFailed(
            f"{bundle.name}: its process ended well but left no answers ({error}): run again"
        ) from error
    if len(answers.scores) != count:
        raise CandidateFailed(
            f"{bundle.name} answered {len(answers.scores)} of {count} pictures: run again"
        )
    return answers


def reference_scores(
    model: Any,
    normalization: ChannelNormalization,
    preprocessing: Preprocessing,
    pictures: Sequence[Picture],
    advance: Callable[[int], None],
) -> NDArray[np.float32]:
    """The float model's own probabilities, ``(N, classes) float32``, from the same pixels.

    ``model`` is the unfolded Keras model: normalised floats to logits.
    """
    from smidgen.export.tensorflow_backend import keras, tf

    mean = tf.constant(normalization.mean, tf.float32)
    std = tf.constant(normalization.std, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, *model.input.shape[1:]), tf.uint8)])  # type: ignore[untyped-decorator]
    def forward(pixels: Any) -> Any:
        logits = model((tf.cast(pixels, tf.float32) - mean) / std, training=False)
        return keras.ops.softmax(logits)

    rows = []
    for pixels in pixel_batches(pictures, preprocessing, _BATCH):
        rows.append(np.asarray(forward(tf.constant(pixels)), np.float32))
        advance(len(pixels))
    return np.concatenate(rows)


def keep_scores(path: Path, key: str, scores: NDArray[np.float32]) -> None:
    """Write ``scores`` with the ``key`` of what they depend on. Raises OutputError."""
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, scores=scores, key=np.asarray(key))


def kept_scores(path: Path, key: str) -> NDArray[np.float32] | None:
    """The scores under ``path`` if they were kept with ``key``; None otherwise."""
    try:
        with np.load(path) as content:
            return np.asarray(content["scores"]) if str(content["key"]) == key else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
