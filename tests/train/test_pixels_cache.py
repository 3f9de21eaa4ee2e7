"""Decoded images on disk: shared between Runs, all or nothing, continued, limited in size."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import load_pixels
from smidgen.train import DataRecipe
from smidgen.train.data import Example
from smidgen.train.data.scan import take_inventory
from smidgen.train.errors import DataError, DiskSpaceError
from smidgen.train.pixels import (
    CacheFolder,
    ReferenceDecoder,
    StreamedPixels,
    decode_all,
    default_folder,
    open_pixels,
    require_space,
)
from smidgen.train.pixels.decoding import FlatDecoder
from smidgen.train.progress import SilentProgress


class Interrupting(SilentProgress):
    """Presses Ctrl-C after some images."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def advance(self, count: int, detail: str = "") -> None:
        super().advance(count, detail)
        if self.counted >= self._after:
            raise KeyboardInterrupt


def write_files(folder: Path, contents: list[bytes]) -> list[Example]:
    """A file of each content; FlatDecoder takes any that does not begin with ``bad``."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number, data in enumerate(contents):
        path = folder / f"{number}.bin"
        path.write_bytes(data)
        examples.append(Example(str(path), 0, hashlib.sha256(data).hexdigest()))
    return examples


def contents(count: int, name: str = "image") -> list[bytes]:
    return [f"{name} {number}".encode() for number in range(count)]


def levels(pixels: object, examples: list[Example]) -> list[int]:
    """The grey level of each example, and that its square is flat."""
    taken = pixels.take(pixels.rows_of(examples))  # type: ignore[attr-defined]
    assert (taken == taken[:, :1, :1, :1]).all()
    return taken[:, 0, 0, 0].tolist()  # type: ignore[no-any-return]


def test_rows_are_what_the_decoder_makes(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 5, "blue": 4})
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "0000.png").read_bytes()[:400])
    examples = [item.example for item in take_inventory(folder, DataRecipe(str(folder))).found]
    size, cache = Preprocessing(width=64, height=64), CacheFolder(tmp_path / "cache")
    progress = SilentProgress()
    pixels = decode_all(examples, ReferenceDecoder(size), cache, progress)
    assert (pixels.side, progress.counted, progress.stages) == (64, 10, ["decoding"])
    cut = next(example for example in examples if example.path.endswith("cut.png"))
    assert list(pixels.unreadable) == [cut.sha256]
    assert pixels.unreadable[cut.sha256].startswith("truncated or corrupt image")
    rows = pixels.rows_of(examples)
    assert (sorted(rows.tolist()), rows.dtype) == (list(range(10)), np.int64)
    taken = pixels.take(rows)
    assert (taken.shape, taken.dtype) == ((10, 64, 64, 3), np.uint8)
    for square, example in zip(taken, examples, strict=True):
        expected = np.zeros_like(square) if example is cut else load_pixels(example.path, size)
        np.testing.assert_array_equal(square, expected)
    with pytest.raises(KeyError):
        pixels.rows_of([Example("other", 0, "00" * 32)])
    with pytest.raises(IndexError, match="row 10 of 10"):
        pixels.take(np.array([10]))


def test_a_set_is_decoded_once_whatever_the_order_and_the_place_of_its_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    cache, decoder = CacheFolder(tmp_path / "cache"), FlatDecoder(16)
    examples = write_files(tmp_path / "a", [*contents(20), b"bad one"])
    first = decode_all(examples, decoder, cache, SilentProgress())
    assert decoder.calls == 21
    copies = write_files(tmp_path / "b", [*contents(20), b"bad one"])
    turned = [dataclasses.replace(example, turn=1) for example in copies]
    again = decode_all([*reversed(copies), *turned], decoder, cache, SilentProgress())
    assert decoder.calls == 21
    assert levels(again, copies) == levels(first, examples)
    assert again.unreadable == {examples[-1].sha256: "a bad image; replace it by a good one"}
    decode_all(examples[1:], decoder, cache, SilentProgress())
    assert decoder.calls == 41
    larger = FlatDecoder(17)
    decode_all(examples, larger, cache, SilentProgress())
    assert larger.calls == 21
    assert len(list(cache.path.iterdir())) == 3
    for folder in cache.path.iterdir():
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["pixels.npy", "unreadable.json"]


def test_an_interrupted_set_goes_on_where_it_was(tmp_path: Path) -> None:
    """A block of 600 x 600 pixels is one image, so that the interruption falls in the middle."""
    cache, examples = CacheFolder(tmp_path / "cache"), write_files(tmp_path / "a", contents(30))
    expected = levels(decode_all(examples, FlatDecoder(600), cache, SilentProgress()), examples)
    other = CacheFolder(tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        decode_all(examples, FlatDecoder(600), other, Interrupting(after=12))
    (folder,) = other.path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["partial.json", "partial.npy"]
    state = json.loads((folder / "partial.json").read_text())
    assert state["rows"] == 12
    with open(folder / "partial.npy", "ab") as stream:
        stream.write(b"torn" * 1000)  # what a killed process wrote after its last word
    decoder, progress = FlatDecoder(600), SilentProgress()
    assert levels(decode_all(examples, decoder, other, progress), examples) == expected
    assert (decoder.calls, progress.counted) == (18, 18)


def test_rows_that_never_reached_the_disk_are_decoded_again(tmp_path: Path) -> None:
    """After a crash of the machine the file can be shorter than the state says."""
    cache, examples = CacheFolder(tmp_path / "cache"), write_files(tmp_path / "a", contents(30))
    with pytest.raises(KeyboardInterrupt):
        decode_all(examples, FlatDecoder(600), cache, Interrupting(after=12))
    (folder,) = cache.path.iterdir()
    os.truncate(folder / "partial.npy", 1_000_000)
    decoder = FlatDecoder(600)
    pixels = decode_all(examples, decoder, cache, SilentProgress())
    assert decoder.calls == 30
    assert levels(pixels, examples) == [
        int(decoder.decode(example.path)[0, 0, 0]) for example in examples
    ]


def test_half_a_set_is_none(tmp_path: Path) -> None:
    cache, examples = CacheFolder(tmp_path / "cache"), write_files(tmp_path / "a", contents(5))
    expected = levels(decode_all(examples, FlatDecoder(16), cache, SilentProgress()), examples)
    for name in ("unreadable.json", "pixels.npy"):
        (path,) = cache.path.glob(f"*/{name}")
        path.unlink()
        decoder = FlatDecoder(16)
        again = decode_all(examples, decoder, cache, SilentProgress())
        assert (decoder.calls, levels(again, examples)) == (5, expected)


def test_a_damaged_set_is_named(tmp_path: Path) -> None:
    cache, examples = CacheFolder(tmp_path / "cache"), write_files(tmp_path / "a", contents(5))
    pixels = decode_all(examples, FlatDecoder(16), cache, SilentProgress())
    (path,) = cache.path.glob("*/pixels.npy")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"pixels\.npy is damaged; delete its folder"):
        decode_all(examples, FlatDecoder(16), cache, SilentProgress())
    with pytest.raises(DataError, match="damaged"):
        pixels.take(np.arange(5))
    path.write_bytes(b"not numpy")
    with pytest.raises(DataError, match="damaged"):
        decode_all(examples, FlatDecoder(16), cache, SilentProgress())


def test_a_vanished_or_changed_file_is_not_remembered_as_undecodable(tmp_path: Path) -> None:
    size, cache = Preprocessing(16, 16), CacheFolder(tmp_path / "cache")
    examples = write_files(tmp_path / "a", contents(3))
    Path(examples[1].path).unlink()
    with pytest.raises(DataError, match=r"1\.bin cannot be read any more"):
        decode_all(examples, ReferenceDecoder(size), cache, SilentProgress())
    Path(examples[1].path).write_bytes(b"something else")
    with pytest.raises(DataError, match=r"1\.bin changed while the images were read"):
        decode_all(examples, ReferenceDecoder(size), cache, SilentProgress())


def test_sets_used_longest_ago_make_room(tmp_path: Path) -> None:
    """Three sets fit; the one that is open stays, though it is the oldest."""
    set_bytes = 40 * 32 * 32 * 3
    cache = CacheFolder(tmp_path / "cache", limit_bytes=3 * set_bytes + 40_000)
    sets = [write_files(tmp_path / name, contents(40, name)) for name in "abcd"]
    opened = decode_all(sets[0], FlatDecoder(32), cache, SilentProgress())
    for examples in sets[1:3]:
        decode_all(examples, FlatDecoder(32), cache, SilentProgress())
    decode_all(sets[1], FlatDecoder(32), cache, SilentProgress())  # now c is the oldest unused
    decode_all(sets[3], FlatDecoder(32), cache, SilentProgress())
    calls = []
    for examples in (sets[0], sets[1], sets[3]):
        decoder = FlatDecoder(32)
        decode_all(examples, decoder, cache, SilentProgress())
        calls.append(decoder.calls)
    assert calls == [0, 0, 0]
    assert len(list(cache.path.glob("*/pixels.npy"))) == 3
    expected = [int(FlatDecoder(32).decode(e.path)[0, 0, 0]) for e in sets[0]]
    assert levels(opened, sets[0]) == expected
    small = dataclasses.replace(cache, limit_bytes=set_bytes - 1)
    with pytest.raises(DiskSpaceError, match=r"SMIDGEN_CACHE_GB allows 0 MB in all"):
        decode_all(sets[2], FlatDecoder(32), small, SilentProgress())
    assert len(list(cache.path.glob("*/pixels.npy"))) == 3  # nothing was deleted in vain


def test_only_sets_are_ever_deleted(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path / "cache", limit_bytes=50_000)
    (cache.path / "my photos").mkdir(parents=True)
    mine = cache.path / "my photos" / "pixels.npy"
    mine.write_bytes(bytes(100_000))
    first, second = (write_files(tmp_path / n, contents(10, n)) for n in "ab")
    decode_all(first, FlatDecoder(32), cache, SilentProgress())
    decode_all(second, FlatDecoder(32), cache, SilentProgress())
    assert mine.stat().st_size == 100_000
    assert len(list(cache.path.glob("*/unreadable.json"))) == 1


def test_without_room_batches_are_decoded_anew(tmp_path: Path) -> None:
    examples = write_files(tmp_path / "a", [*contents(10), b"bad"])
    decoder, progress = FlatDecoder(32), SilentProgress()
    cache = CacheFolder(tmp_path / "cache", limit_bytes=1000)
    streamed = open_pixels(examples, decoder, progress, cache)
    assert isinstance(streamed, StreamedPixels)
    assert progress.notes == [
        f"the decoded images (11 of them) need 0 MB in {cache.path}, SMIDGEN_CACHE_GB allows 0 MB "
        "in all: decoding anew in each epoch (slower)"
    ]
    assert (decoder.calls, progress.stages, progress.counted) == (11, ["checking"], 11)
    roomy = open_pixels(examples, FlatDecoder(32), SilentProgress(), CacheFolder(tmp_path / "c"))
    assert streamed.unreadable == roomy.unreadable and streamed.side == roomy.side == 32
    np.testing.assert_array_equal(streamed.rows_of(examples), roomy.rows_of(examples))
    assert levels(streamed, examples) == levels(roomy, examples)
    assert decoder.calls == 21
    Path(examples[3].path).write_bytes(b"bad now")
    with pytest.raises(DataError, match=r"3\.bin could be decoded before and cannot be now"):
        streamed.take(streamed.rows_of(examples[3:4]))


def test_a_place_that_cannot_be_written_streams_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    examples, progress = write_files(tmp_path / "a", contents(3)), SilentProgress()
    source = open_pixels(
        examples, FlatDecoder(8), progress, CacheFolder(tmp_path / "file" / "pixels")
    )
    assert isinstance(source, StreamedPixels)
    (note,) = progress.notes
    assert note.startswith("cannot write") and note.endswith("in each epoch (slower)")


def test_the_folder_and_its_limit_come_from_the_environment(tmp_path: Path) -> None:
    home = Path.home() / ".cache" / "smidgen" / "pixels"
    assert default_folder({}) == CacheFolder(home, 20_000_000_000)
    assert default_folder({"XDG_CACHE_HOME": "relative"}).path == home
    assert default_folder({"XDG_CACHE_HOME": "/x"}).path == Path("/x/smidgen/pixels")
    given = {"XDG_CACHE_HOME": "/x", "SMIDGEN_CACHE": str(tmp_path), "SMIDGEN_CACHE_GB": "0.5"}
    assert default_folder(given) == CacheFolder(tmp_path / "pixels", 500_000_000)
    for wrong in ("many", "-1", "nan", "inf"):
        with pytest.raises(DataError, match=rf"SMIDGEN_CACHE_GB = '{wrong}': expected a number"):
            default_folder({"SMIDGEN_CACHE_GB": wrong})


def test_too_little_space_is_known_before_decoding(tmp_path: Path) -> None:
    require_space(tmp_path, 1, "one byte")
    with pytest.raises(DiskSpaceError, match=r"pictures need 1,152,921,504,607 MB in .*are free"):
        require_space(tmp_path / "not" / "yet", 1 << 60, "pictures")


PRELUDE = """
import hashlib, os, pathlib, signal, sys, time
from smidgen.train.data import Example
from smidgen.train.pixels import CacheFolder, decode_all
from smidgen.train.pixels.decoding import FlatDecoder
from smidgen.train.progress import SilentProgress

class Slow(FlatDecoder):
    def decode(self, path):
        time.sleep(0.03)
        return super().decode(path)

class Killing(SilentProgress):
    def advance(self, count, detail=""):
        super().advance(count, detail)
        if self.counted == 130:
            os.kill(os.getpid(), signal.SIGKILL)

files = sorted(pathlib.Path(sys.argv[1]).iterdir())
examples = [Example(str(p), 0, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]
cache, decoder, progress = CacheFolder(pathlib.Path(sys.argv[2])), Slow(600), SilentProgress()
print("ready", flush=True)
sys.stdin.readline()
"""


def start(program: str, *arguments: Path) -> subprocess.Popen[str]:
    """A process that has imported everything and waits for its input to end."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(program), *map(str, arguments)]
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert run.stdout is not None and run.stdout.readline() == "ready\n"
    return run


def shown(run: subprocess.Popen[str]) -> str:
    """What it prints once it goes on; nothing on stderr."""
    out, error = run.communicate(timeout=120)
    assert error == ""
    return out.strip()


DECODE = """
    pixels = decode_all(examples, decoder, cache, progress)
    rows = pixels.rows_of(examples)
    total = sum(int(pixels.take(rows[i:i + 1])[0, 0, 0, 0]) for i in range(len(rows)))
    print(decoder.calls, total, progress.notes)
"""


def test_two_runs_that_start_at_once_decode_once(tmp_path: Path) -> None:
    examples = write_files(tmp_path / "a", contents(60))
    runs = [start(DECODE, tmp_path / "a", tmp_path / "cache") for _ in range(2)]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    lines = [shown(run) for run in runs]
    calls, totals, notes = zip(*(line.split(" ", 2) for line in lines), strict=True)
    expected = sum(int(FlatDecoder(4).decode(e.path)[0, 0, 0]) for e in examples)
    assert set(totals) == {str(expected)}
    assert sorted(calls) == ["0", "60"]
    assert any("waiting for another smidgen process" in note for note in notes)


def test_a_killed_run_s_set_is_finished_by_the_next(tmp_path: Path) -> None:
    """SIGKILL after 130 images of 1.08 MB; each 64 MiB, which is 63 of them, were made safe."""
    examples = write_files(tmp_path / "a", contents(150))
    killed = start(DECODE.replace("progress)", "Killing())"), tmp_path / "a", tmp_path / "cache")
    assert shown(killed) == "" and killed.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["partial.json", "partial.npy"]
    calls, total, _ = shown(start(DECODE, tmp_path / "a", tmp_path / "cache")).split(" ", 2)
    expected = sum(int(FlatDecoder(4).decode(e.path)[0, 0, 0]) for e in examples)
    assert (calls, total) == (str(150 - 2 * 63), str(expected))


def test_a_disk_that_fills_up_is_one_line(tmp_path: Path) -> None:
    """A limit on the file size, in a process of its own, stands in for the full disk."""
    write_files(tmp_path / "a", contents(9))
    program = """
        import resource
        from smidgen.runtime.errors import OutputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
        try:
            decode_all(examples, decoder, cache, progress)
        except OutputError as error:
            print("OutputError", "\\n" not in str(error), list(cache.path.glob("*/*")))
    """
    assert shown(start(program, tmp_path / "a", tmp_path / "cache")) == "OutputError True []"
