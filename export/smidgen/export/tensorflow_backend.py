"""The one place that imports TensorFlow and Keras for export, quietly and on the right backend.

Import this module late: it takes five seconds. It sets ``KERAS_BACKEND`` (export always runs on
TensorFlow, whatever trained the model) and raises BackendError where Keras was already imported on
another backend, which cannot be changed within a process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from smidgen.export.errors import BackendError


@contextlib.contextmanager
def captured_output() -> Iterator[IO[str]]:
    """Send file descriptors 1 and 2 to a temporary file while the block runs, and yield the file.

    Converters write to both from C++, where ``contextlib.redirect_stdout`` does not reach, and from
    Python, where ``sys.stdout`` may be something else (in a notebook). Whoever
    must be seen meanwhile writes to a duplicate of stderr made before (see ``progress.py``).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as capture:
        saved = [os.dup(1), os.dup(2)]
        try:
            os.dup2(capture.fileno(), 1)
            os.dup2(capture.fileno(), 2)
            with contextlib.redirect_stdout(capture), contextlib.redirect_stderr(capture):
                yield capture
        finally:
            capture.flush()
            for descriptor, copy in enumerate(saved, start=1):
                os.dup2(copy, descriptor)
                os.close(copy)


def _import() -> tuple[Any, Any]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with captured_output():
            import keras
            import tensorflow
    except ImportError as error:
        raise BackendError(
            f"export needs TensorFlow, which is not installed here ({error}): "
            "install tensorflow and keras, or export in the toolchain's environment"
        ) from error
    if keras.config.backend() != "tensorflow":
        raise BackendError(
            f"Keras already runs on {keras.config.backend()} in this process, export needs "
            "TensorFlow: run `smidgen export` in a process of its own"
        )
    # Made here, not while output is captured: its handler keeps the stream of the first message.
    tensorflow.get_logger().setLevel("ERROR")
    return keras, tensorflow


keras, tf = _import()

__all__ = ["captured_output", "keras", "tf"]
