"""The decoded images: exactly the deploy pre-processing, all or nothing on disk."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels
from smidgen.train import DataRecipe
from smidgen.train.errors import DiskSpaceError
from smidgen.train.pixels import decode_all, require_space
from smidgen.train.progress import SilentProgress
from smidgen.train.data.scan import take_inventory

SIZE_64 = Preprocessing(width=64, height=64)


class Interrupting(SilentProgress):
    """Presses Ctrl-C after some images."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def advance(self, count: int, detail: str = "") -> None:
        super().advance(count, detail)
        if self.counted >= self._after:
            raise KeyboardInterrupt


def test_rows_are_what_the_device_sees(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 5, "blue": 4})
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "0000.png").read_bytes()[:400])
    inventory = take_inventory(folder, DataRecipe(str(folder)))
    examples = [item.example for item in inventory.found]
    progress = SilentProgress()
    pixels = decode_all(examples, SIZE_64, tmp_path / "cache", progress)
    assert (pixels.array.shape, pixels.array.dtype) == ((10, 64, 64, 3), np.uint8)
    assert progress.counted == 10
    cut = next(example for example in examples if example.path.endswith("cut.png"))
    assert set(pixels.unreadable) == {cut.sha256}
    for example in examples:
        if example is not cut:
            row = pixels.array[pixels.rows[example.sha256]]
            np.testing.assert_array_equal(row, load_pixels(example.path, SIZE_64))

    again = SilentProgress()
    reopened = decode_all(examples, SIZE_64, tmp_path / "cache", again)
    assert (again.counted, reopened.unreadable) == (0, pixels.unreadable)
    stretched = Preprocessing(width=64, height=64, fit="stretch")
    killed = tmp_path / "cache" / ".pixels-0.x1.npy"
    killed.write_bytes(b"half")
    decode_all(examples, stretched, tmp_path / "cache", again)
    assert again.counted == 10
    assert len(list((tmp_path / "cache").iterdir())) == 2  # neither the other size nor the half one


def test_an_interrupted_cache_leaves_nothing(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 5, "blue": 4})
    examples = [i.example for i in take_inventory(folder, DataRecipe(str(folder))).found]
    with pytest.raises(KeyboardInterrupt):
        decode_all(examples, SIZE_64, tmp_path / "cache", Interrupting(after=3))
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(decode_all(examples, SIZE_64, tmp_path / "cache", SilentProgress()).rows) == 9


def test_too_little_space_is_known_before_decoding(tmp_path: Path) -> None:
    require_space(tmp_path, 1, "one byte")
    with pytest.raises(DiskSpaceError, match=r"pictures need 1,152,921,504,607 MB in .*are free"):
        require_space(tmp_path / "not" / "yet", 1 << 60, "pictures")


def test_a_disk_that_fills_up_is_one_line(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A limit on the file size, in a process of its own, stands in for the full disk."""
    folder = make_folder("photos", {"red": 5, "blue": 4})
    program = f"""
        import pathlib, resource, signal
        from smidgen.runtime.errors import OutputError
        from smidgen.runtime.manifest import Preprocessing
        from smidgen.train import DataRecipe
        from smidgen.train.pixels import decode_all
        from smidgen.train.progress import SilentProgress
        from smidgen.train.data.scan import take_inventory
        found = take_inventory({str(folder)!r}, DataRecipe("x")).found
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        cache = pathlib.Path({str(tmp_path / "cache")!r})
        try:
            decode_all([f.example for f in found], Preprocessing(64, 64), cache, SilentProgress())
        except OutputError as error:
            print("OutputError", "\\n" not in str(error), list(cache.iterdir()))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "OutputError True []", shown.stderr
