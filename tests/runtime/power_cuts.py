"""Disks that lose what was not synced, or fail, and an engine that models can kill.

The model, harder than any one file system (compare Pillai et al., OSDI 2014, table 1):

- content that was not synced is there in full, in part, not at all, or as zeros;
- each change of a folder (a new name, a rename, a removal) that was not synced has happened or has
  not, whatever came before or after it: any subset of them. One change is atomic.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from smidgen.runtime.engine import EngineOptions, Session
from smidgen.runtime.errors import EngineFailed
from smidgen.runtime.fake import FakeEngine
from smidgen.runtime.files import Disk
from smidgen.runtime.manifest import Manifest

Tree = dict[str, bytes]
"""Content by path below the root; a folder ends with ``/``."""


MAX_PENDING = 8
"""Changes of a folder that may be on the way to the disk at one time."""


class HastyDisk(Disk):
    """Satisfies ``Files``. Syncs nothing: enough where no power is cut, and 10 ms a file faster."""

    def sync(self, path: Path) -> None:
        assert path.is_file()

    def sync_folder(self, path: Path) -> None:
        assert path.is_dir()


class DarkeningDisk(HastyDisk):
    """Satisfies ``Files``. Before every operation it notes the trees that a power cut could leave.

    ``forgets`` plants a fault: operations of this name do not reach the (imagined) disk.
    """

    def __init__(self, root: Path, forgets: str = "") -> None:
        self.moments: list[list[Tree]] = []
        self._root, self._forgets = root, forgets
        self._content: list[tuple[bytes, bool]] = []  # by file number: its bytes; whether synced
        self._live: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._pending: list[tuple[str, dict[str, Optional[int]]]] = []
        for path in sorted(root.rglob("*")):  # what is there, is there for good
            name = self._name(path)
            self._live[name] = self._durable[name] = len(self._content)
            self._content.append((b"" if path.is_dir() else path.read_bytes(), True))

    def note(self) -> None:
        """Every tree that could be there if the power went now."""
        found = {}
        for count in range(len(self._pending) + 1):
            for chosen in itertools.combinations(self._pending, count):
                names = dict(self._durable)
                for _, change in chosen:
                    names.update({name: n for name, n in change.items() if n is not None})
                    for name in [name for name, n in change.items() if n is None]:
                        names.pop(name, None)
                for tree in self._trees(names):
                    found[tuple(sorted(tree.items()))] = tree
        self.moments.append(list(found.values()))

    def make_folder(self, path: Path) -> None:
        self.note()
        super().make_folder(path)
        name = f"{path.relative_to(self._root)}/"
        if name not in self._live:
            self._content.append((b"", True))
            self._change(path.parent, {name: len(self._content) - 1})

    def write(self, path: Path, data: bytes) -> None:
        self.note()
        super().write(path, data)
        name = self._name(path)
        if name in self._live:
            self._content[self._live[name]] = (data, False)
        else:
            self._content.append((data, False))
            self._change(path.parent, {name: len(self._content) - 1})

    def sync(self, path: Path) -> None:
        self.note()
        super().sync(path)
        number = self._live[self._name(path)]
        if self._forgets != "sync":
            self._content[number] = (self._content[number][0], True)

    def rename(self, old: Path, new: Path) -> None:
        self.note()
        super().rename(old, new)
        number = self._live[self._name_of_file(old)]
        self._change(new.parent, {self._name_of_file(old): None, self._name_of_file(new): number})

    def remove(self, path: Path) -> None:
        self.note()
        super().remove(path)
        self._change(path.parent, {self._name_of_file(path): None})

    def sync_folder(self, path: Path) -> None:
        self.note()
        super().sync_folder(path)
        if self._forgets == "sync_folder":
            return
        for folder, change in self._pending:
            if folder == str(path):
                self._apply(self._durable, change)
        self._pending = [one for one in self._pending if one[0] != str(path)]

    def _trees(self, names: dict[str, int]) -> Iterator[Tree]:
        there = {
            name: number
            for name, number in names.items()
            if all(f"{above}/" in names for above in Path(name).parents if str(above) != ".")
        }
        choices = [self._remains(number) for number in there.values()]
        for contents in itertools.product(*choices):
            yield dict(zip(there, contents))

    def _remains(self, number: int) -> list[bytes]:
        data, is_synced = self._content[number]
        if is_synced:
            return [data]
        return [data, b"", data[: len(data) // 2], bytes(len(data))]

    def _change(self, folder: Path, change: dict[str, Optional[int]]) -> None:
        self._apply(self._live, change)
        self._pending.append((str(folder), change))
        if len(self._pending) > MAX_PENDING:  # written back long ago; only a planted fault has more
            assert self._forgets
            self._apply(self._durable, self._pending.pop(0)[1])

    def _apply(self, names: dict[str, int], change: dict[str, Optional[int]]) -> None:
        for name, number in change.items():
            if number is None:
                names.pop(name, None)
            else:
                names[name] = number

    def _name(self, path: Path) -> str:
        return f"{path.relative_to(self._root)}/" if path.is_dir() else self._name_of_file(path)

    def _name_of_file(self, path: Path) -> str:
        return str(path.relative_to(self._root))


class FailingDisk(HastyDisk):
    """Satisfies ``Files``. The operations from number ``first`` to ``last`` raise ``error``."""

    def __init__(self, error: OSError, first: int, last: int) -> None:
        self.count = 0
        self._error, self._bad = error, range(first, last + 1)

    def _step(self) -> None:
        self.count += 1
        if self.count - 1 in self._bad:
            raise self._error

    def make_folder(self, path: Path) -> None:
        self._step()
        super().make_folder(path)

    def write(self, path: Path, data: bytes) -> None:
        if self.count in self._bad:
            super().write(path, data[: len(data) // 2])  # as far as there was space
        self._step()
        super().write(path, data)

    def sync(self, path: Path) -> None:
        self._step()
        super().sync(path)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)

    def sync_folder(self, path: Path) -> None:
        self._step()
        super().sync_folder(path)


def restore(tree: Tree, root: Path) -> None:
    """Make ``tree`` below the empty folder ``root``."""
    for name, content in sorted(tree.items()):
        if name.endswith("/"):
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).write_bytes(content)


@dataclass(frozen=True)
class PickyEngine(FakeEngine):
    """A FakeEngine that some models do not run on, by the name in their manifest."""

    refuses: tuple[str, ...] = ()
    dies_of: tuple[str, ...] = ()
    """Opening one of these ends the process at once, as a crash or a power cut does."""

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine."""
        if manifest.name in self.dies_of:
            os.kill(os.getpid(), signal.SIGKILL)
        if manifest.name in self.refuses:
            raise EngineFailed(f"fake: refused {manifest.name}")
        return super().open(data, manifest, options)
