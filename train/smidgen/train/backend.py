"""Choosing what Keras computes with, before Keras is imported: it cannot be changed afterwards."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator

from smidgen.train.errors import BackendError


def select_backend(name: str) -> None:
    """Import Keras on the backend ``name`` (``tensorflow`` or ``jax``), without its chatter.

    Raises:
        BackendError: not installed, or Keras or ``KERAS_BACKEND`` is set to another one.
    """
    if "keras" not in sys.modules:
        asked = os.environ.get("KERAS_BACKEND", name)
        if asked != name:
            raise BackendError(
                f"the environment says KERAS_BACKEND={asked}, the recipe says schedule.backend = "
                f"{name!r}; unset the variable or change the recipe"
            )
        for module in ("keras", name):
            if importlib.util.find_spec(module) is None:
                raise BackendError(
                    f"schedule.backend = {name!r}, but {module} is not installed: pip install "
                    f"{module}"
                )
        os.environ["KERAS_BACKEND"] = name
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _stderr_set_aside():
            importlib.import_module("keras")
    running = importlib.import_module("keras").config.backend()
    if running != name:
        raise BackendError(
            f"Keras already runs on {running} in this process, the recipe says schedule.backend = "
            f"{name!r}; start a process of its own"
        )


@contextlib.contextmanager
def _stderr_set_aside() -> Iterator[None]:
    """Keep file descriptor 2 quiet: the libraries greet on it from C++ while they are imported."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        saved = os.dup(2)
        try:
            os.dup2(aside.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
