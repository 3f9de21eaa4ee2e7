"""One process at a time writes into a folder of results."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from smidgen.runtime.files import output_error


@contextlib.contextmanager
def sole_writer(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Make ``folder`` and hold it while the block runs; first wait for whoever holds it.

    The lock is on the folder itself, leaves no file, and goes with the process, whatever ends it.
    ``note`` is told in a line that there is somebody to wait for, or that the file system (some
    network ones) has no such locks.

    Raises:
        OutputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting for another smidgen process that writes into {folder}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            note(f"{folder} cannot be locked ({error.strerror}); start nothing else that writes it")
        yield
    finally:
        os.close(handle)
