"""Writing files so that a killed run never leaves half of one under its final name.

The order is always: data to the disk (fsync of the file), then its name (rename), then the folder
that holds the name (fsync of the folder). POSIX promises none of them without the other, and file
systems differ in what they write first: T. S. Pillai et al., "All File Systems Are Not Created
Equal: On the Complexity of Crafting Crash-Consistent Applications", OSDI 2014.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Union

from smidgen.runtime.errors import OutputError

_READ_BYTES = 1 << 20


def sha256_of_file(path: Union[str, os.PathLike[str]]) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(_READ_BYTES), b""):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Union[str, os.PathLike[str]]) -> Iterator[Path]:
    """A temporary path beside ``path`` which takes its name when the block ends well.

    The temporary name keeps the suffix of ``path`` (writers look at it) and starts with a dot.
    When the block raises, is interrupted, or the disk is full, the temporary file is removed and
    whatever stood under ``path`` before stays as it was.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    final = Path(path)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix="." + final.stem + ".", suffix=final.suffix, dir=final.parent
        )
        os.close(handle)
    except OSError as error:
        raise output_error(final, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _publish(temporary, final)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise output_error(final, error) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_bytes(path: Union[str, os.PathLike[str]], data: bytes) -> None:
    """Write ``data`` to ``path``, all of it or nothing. Raises OutputError."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Union[str, os.PathLike[str]], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, all of it or nothing. Raises OutputError."""
    write_bytes(path, text.encode("utf-8"))


class Files(Protocol):
    """Changes of a disk, each raising OSError: ``Disk``, or in tests one that fails or goes dark.

    What was written or named is safe from a power cut only after ``sync`` of the file, and
    ``sync_folder`` of the folder with its name.
    """

    def make_folder(self, path: Path) -> None: ...
    def write(self, path: Path, data: bytes) -> None: ...
    def sync(self, path: Path) -> None: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def remove(self, path: Path) -> None: ...
    def sync_folder(self, path: Path) -> None: ...


class Disk:
    """The real one. See ``Files``."""

    def make_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)

    def sync(self, path: Path) -> None:
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, path: Path) -> None:
        """Nothing happens where folders cannot be synced (Windows, some network file systems)."""
        try:
            handle = os.open(path, os.O_RDONLY)
        except PermissionError:
            return
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
                raise
        finally:
            os.close(handle)


def publish(temporary: Path, final: Path, files: Files) -> None:
    """Give a written file its final name, in its folder; no power cut can undo it afterwards."""
    files.sync(temporary)
    files.rename(temporary, final)
    files.sync_folder(final.parent)


def output_error(path: Path, error: OSError) -> OutputError:
    """The one line for a user whose disk or permissions do not allow ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"disk full while writing {path}: free some space and run again")
    return OutputError(f"cannot write {path}: {error.strerror or error}; choose another folder")


def _publish(temporary: Path, final: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    publish(temporary, final, Disk())
