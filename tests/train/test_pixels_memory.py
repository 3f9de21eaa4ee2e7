"""Ten times the images take no more memory, decoding, training and predicting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import pathlib, sys
import numpy as np
from smidgen.train.data import Example
from smidgen.train.pixels import Batches, CacheFolder, HeldOut, StreamedPixels, decode_all
from smidgen.train.pixels.decoding import FlatDecoder
from smidgen.train.progress import SilentProgress

count, way, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
folder.mkdir()
file = folder / "image.bin"
file.write_bytes(b"image")
examples = [Example(str(file), 0, f"{number:064x}") for number in range(count)]
decoder, progress = FlatDecoder(96), SilentProgress()
if way == "streamed":
    source = StreamedPixels(examples, decoder, progress)
else:
    source = decode_all(examples, decoder, CacheFolder(folder / "cache"), progress)
rows = source.rows_of(examples)
seen = 0
for epoch in range(2):
    for _, pixels, _ in Batches(source, rows, rows, 32, seed=0).epoch(0, epoch):
        seen += len(pixels)
seen += sum(len(pixels) for pixels in HeldOut(source, rows, rows, 32))
if way == "mapped":  # the fault that is planted
    (path,) = folder.glob("cache/*/pixels.npy")
    array = np.load(path, mmap_mode="r")
    seen += sum(int(array[row].any()) for row in rows)
assert seen >= 3 * count - 64, seen
status = pathlib.Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
MEGABYTE_KB = 1000


def peak_kb(count: int, way: str, folder: Path) -> int:
    """Peak resident memory of a process that goes through ``count`` images three times."""
    command = [sys.executable, "-c", PROGRAM, str(count), way, str(folder / f"{way}-{count}")]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    return int(shown.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: /proc")
@pytest.mark.parametrize("way", ["cached", "streamed"])
def test_memory_is_flat(way: str, tmp_path: Path) -> None:
    """300 and 3,000 images: 8 and 83 MB of pixels. A memory map would show."""
    growth_kb = peak_kb(3000, way, tmp_path) - peak_kb(300, way, tmp_path)
    assert growth_kb < 12 * MEGABYTE_KB
    if way == "cached":
        mapped_kb = peak_kb(3000, "mapped", tmp_path) - peak_kb(300, "mapped", tmp_path)
        assert mapped_kb > 40 * MEGABYTE_KB
