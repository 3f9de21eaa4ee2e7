"""Raw timings: what is measured, and that peak memory is this process's own."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from smidgen.runtime import SelfTestFailed, SmidgenError
from smidgen.runtime.fake import FakeEngine, brightness_scores
from smidgen.runtime.timing import measure, peak_rss_bytes

MakeBundle = Callable[..., Path]


def test_one_entry_per_run_and_parts_within_the_whole(make_bundle: MakeBundle) -> None:
    sample = measure(make_bundle("onnx"), backend=FakeEngine(), warmup=3, runs=7)
    parts = zip(sample.decode_ns, sample.preprocess_ns, sample.inference_ns)
    assert len(sample.whole_ns) == 7
    for part, whole in zip(parts, sample.whole_ns):
        assert all(value > 0 for value in part)
        assert sum(part) <= whole
    assert sample.import_ns > 0 and sample.load_ns > 0 and sample.first_inference_ns > 0
    assert (sample.engine, sample.threads, sample.warmup_runs) == ("fake", 1, 3)
    assert sample.image == "golden"


def test_a_slow_stage_shows_in_its_own_column(make_bundle: MakeBundle) -> None:
    import time

    def slow(pixels: Any, classes: int) -> Any:
        time.sleep(0.02)
        return brightness_scores(pixels, classes)

    sample = measure(make_bundle("onnx"), backend=FakeEngine(scores=slow), warmup=1, runs=3)
    assert min(sample.inference_ns) >= 20_000_000
    assert sample.first_inference_ns >= 20_000_000
    assert min(sample.decode_ns) < 20_000_000


def test_warmup_runs_once_each_and_the_collector_rests(make_bundle: MakeBundle) -> None:
    seen: list[bool] = []

    def watching(pixels: Any, classes: int) -> Any:
        seen.append(gc.isenabled())
        return brightness_scores(pixels, classes)

    measure(make_bundle("onnx"), backend=FakeEngine(scores=watching), warmup=2, runs=4)
    assert seen == [True] + [False] * 6
    assert gc.isenabled()


def test_a_picture_of_ones_own(make_bundle: MakeBundle, photo_png: bytes, tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    picture.write_bytes(photo_png)
    bundle = make_bundle("onnx", golden=None)
    sample = measure(bundle, backend=FakeEngine(), runs=1, image=picture)
    assert sample.image == str(picture)
    with pytest.raises(SelfTestFailed, match="no golden picture"):
        measure(bundle, backend=FakeEngine())
    with pytest.raises(SmidgenError, match="No such file"):
        measure(bundle, backend=FakeEngine(), image=tmp_path / "absent.png")
    for bad in ({"runs": 0}, {"warmup": -1}):
        with pytest.raises(SmidgenError, match="expected at least 0 and 1"):
            measure(bundle, backend=FakeEngine(), **bad)  # type: ignore[arg-type]


def test_peak_memory_counts_what_was_held() -> None:
    before = peak_rss_bytes()
    assert before is not None
    block = bytearray(before + 50_000_000)
    block[::4096] = b"x" * len(block[::4096])
    del block
    after = peak_rss_bytes()
    assert after is not None
    assert after >= before + 50_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc and inherited ru_maxrss")
def test_peak_memory_is_not_inherited_from_the_parent() -> None:
    script = "from smidgen.runtime.timing import peak_rss_bytes; print(peak_rss_bytes())"
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert 5_000_000 < int(done.stdout) < 150_000_000
    assert len(block) == 200_000_000
