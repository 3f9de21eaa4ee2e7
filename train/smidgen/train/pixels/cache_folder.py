"""The folder of decoded images that all Runs of a user share, and how large it may become.

It is ``$SMIDGEN_CACHE/pixels``, else ``$XDG_CACHE_HOME/smidgen/pixels``, else
``~/.cache/smidgen/pixels``. ``SMIDGEN_CACHE_GB`` (20) is how many GB (10^9 bytes) it may hold: the
sets of images that were not used for longest give way to new ones, but for those that a process
works with. To clear it, delete the folder; Runs that read from it go on.

Each set has a folder of its own, named by its key, with at most the files ``FILES``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smidgen.train.errors import DataError, DiskSpaceError

PIXELS_FILE = "pixels.npy"
UNREADABLE_FILE = "unreadable.json"
PARTIAL_FILE = "partial.npy"
PARTIAL_STATE_FILE = "partial.json"
FILES = (PIXELS_FILE, UNREADABLE_FILE, PARTIAL_FILE, PARTIAL_STATE_FILE)

_KEY = re.compile(r"[0-9a-f]{24}")
_DEFAULT_GB = 20.0


@dataclass(frozen=True)
class CacheFolder:
    """``path``, made when it is needed, and the bytes that it may hold."""

    path: Path
    limit_bytes: int = int(_DEFAULT_GB * 1e9)


def default_folder(environ: Mapping[str, str] = os.environ) -> CacheFolder:
    """What the environment says. Raises DataError where that is no number or no place."""
    given = environ.get("SMIDGEN_CACHE_GB", "")
    try:
        limit_gb = float(given or _DEFAULT_GB)
    except ValueError:
        limit_gb = -1.0
    if not 0 <= limit_gb < 1e9:
        raise DataError(f"SMIDGEN_CACHE_GB = {given!r}: expected a number of GB, as 20, or 0")
    return CacheFolder(_place(environ) / "pixels", int(limit_gb * 1e9))


def _place(environ: Mapping[str, str]) -> Path:
    if environ.get("SMIDGEN_CACHE"):
        return Path(environ["SMIDGEN_CACHE"]).expanduser().absolute()
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():  # the XDG base directory specification: others are ignored
        return base / "smidgen"
    try:
        return Path.home() / ".cache" / "smidgen"
    except RuntimeError as error:
        raise DataError(
            "this user has no home folder for decoded images; name one in SMIDGEN_CACHE"
        ) from error


def require_space(
    folder: Path,
    needed_bytes: int,
    what: str,
    remedy: str = "choose another folder, a smaller image size or a limit",
) -> None:
    """Raise DiskSpaceError unless ``needed_bytes`` are free where ``folder`` is or will be.

    ``what`` needs them, in words; ``remedy`` is what can be done beside freeing space.
    """
    free_bytes = _free_bytes(folder)
    if free_bytes < needed_bytes:
        raise DiskSpaceError(
            f"{what} need {needed_bytes / 1e6:,.0f} MB in {folder}, {free_bytes / 1e6:,.0f} MB are "
            f"free: free some space, or {remedy}"
        )


def make_room(cache: CacheFolder, needed_bytes: int, keep: str, what: str) -> None:
    """Delete the sets used longest ago until ``needed_bytes`` fit under the limit and on the disk.

    Args:
        cache: where.
        needed_bytes: of the set that is to be written.
        keep: key of that set; what there is of it already counts as room.
        what: the set in words, for the error.

    Raises:
        DiskSpaceError: even with all deleted that nobody uses, there would be too little room;
            then nothing is deleted.
    """
    every = _sets(cache.path)
    sets = [item for item in every if item.folder.name != keep]
    free_bytes = _free_bytes(cache.path) + sum(i.size_bytes for i in every if i not in sets)
    room_bytes = min(cache.limit_bytes - sum(item.size_bytes for item in sets), free_bytes)
    chosen: list[_Set] = []
    for item in sorted(sets, key=lambda item: item.used_ns):
        if room_bytes >= needed_bytes:
            break
        if not _is_used(item):
            chosen.append(item)
            room_bytes += item.size_bytes
    if room_bytes < needed_bytes:
        bound = f"{free_bytes / 1e6:,.0f} MB are free"
        if free_bytes >= needed_bytes:
            bound = f"SMIDGEN_CACHE_GB allows {cache.limit_bytes / 1e6:,.0f} MB in all"
        raise DiskSpaceError(f"{what} need {needed_bytes / 1e6:,.0f} MB in {cache.path}, {bound}")
    for item in chosen:
        _delete(item)


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether nobody writes or reads the set in ``folder``; nobody begins to write meanwhile.

    A writer holds a lock on the folder, a reader a shared one on its file of pixels. Where the file
    system has no locks, every set counts as used.
    """
    handles: list[int] = []
    try:
        for path in (folder, folder / PIXELS_FILE):
            if path.exists():
                handles.append(os.open(path, os.O_RDONLY))
                fcntl.flock(handles[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except OSError:
        yield False
    finally:
        for handle in handles:
            os.close(handle)


@dataclass(frozen=True)
class _Set:
    """One set of decoded images: its size, and when it was last used."""

    folder: Path
    size_bytes: int
    used_ns: int


def _sets(root: Path) -> list[_Set]:
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        if not _KEY.fullmatch(folder.name):
            continue
        stats = []
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):
                stats.append((folder / name).stat())
        if stats:
            used_ns = max(stat.st_mtime_ns for stat in stats)
            found.append(_Set(folder, sum(stat.st_blocks * 512 for stat in stats), used_ns))
    return found


def _is_used(item: _Set) -> bool:
    with unused(item.folder) as is_unused:
        return not is_unused


def _delete(item: _Set) -> None:
    """The files; the empty folder stays, because a writer may be about to lock it."""
    with unused(item.folder) as is_unused:
        if is_unused:
            for name in FILES:
                (item.folder / name).unlink(missing_ok=True)


def _free_bytes(folder: Path) -> int:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
