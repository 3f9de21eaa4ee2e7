"""Raw timings of one Bundle in this process: what a benchmark runs on a device.

Nothing is averaged here. Run it in a fresh process: imports and peak memory are the process's own.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classifier
from smidgen.runtime.engine import Engine
from smidgen.runtime.engines import select_engine
from smidgen.runtime.errors import ArgumentInvalid, ImageUnreadable, SelfTestFailed
from smidgen.runtime.preprocessing import load_pixels
from smidgen.runtime.selftest import golden_png

if TYPE_CHECKING:
    from smidgen.runtime.signatures import KeySource


@dataclass(frozen=True)
class TimingSample:
    """Raw nanoseconds of one process, in the order in which they were taken.

    The four tuples have one entry per run. ``whole_ns`` is one ``Classifier.classify`` of the image
    file, from the call to the answer: its three parts, and what is around them.
    """

    engine: str
    engine_version: str
    threads: int
    warmup_runs: int
    import_ns: int
    """Importing the engine's library."""
    load_ns: int
    """Reading and checking the file (it was read once before: in the page cache) and loading it."""
    first_inference_ns: int
    """The first run of the engine on an input tensor."""
    decode_ns: tuple[int, ...]
    preprocess_ns: tuple[int, ...]
    inference_ns: tuple[int, ...]
    whole_ns: tuple[int, ...]
    peak_rss_bytes: Optional[int]
    """Most memory that the process held; None where the system does not tell."""
    file_sha256: str
    image: str
    """The path of the picture, or ``"golden"``."""


def measure(  # noqa: PLR0913  (keyword-only: a benchmark's knobs)
    path: Union[str, os.PathLike[str]],
    *,
    backend: Union[str, Engine] = "auto",
    threads: Union[int, str] = 1,
    warmup: int = 5,
    runs: int = 50,
    image: Optional[Union[str, os.PathLike[str]]] = None,
    trusted_key: Optional[KeySource] = None,
    **options: Any,
) -> TimingSample:
    """Time a Bundle: import, load, first inference, ``warmup`` unrecorded runs, then ``runs``.

    One run is one ``classify`` of one picture: ``image``, or the golden picture inside the Bundle
    (in memory). ``options`` are further ones of ``Classifier``. The garbage collector is off during
    the runs. ``threads="auto"`` is tuned before them.

    Raises:
        ArgumentInvalid: ``warmup`` below 0 or ``runs`` below 1.
        SelfTestFailed: no ``image``, and the Bundle has no golden picture.
        BundleError, EngineError, ImageError: as Classifier.
    """
    if warmup < 0 or runs < 1:
        raise ArgumentInvalid(f"warmup = {warmup}, runs = {runs}: expected at least 0 and 1")
    bundle = Bundle.open(path, trusted_key=trusted_key)
    source = _source(bundle, image)
    pixels = load_pixels(source, bundle.manifest.preprocessing)

    start = time.perf_counter_ns()
    engine = select_engine(backend, bundle.manifest)
    imported = time.perf_counter_ns()
    del bundle  # the classifier reads the file again: one copy in memory, as in an application
    options.update(backend=engine, threads=threads, trusted_key=trusted_key)
    with Classifier(path, **options) as classifier:
        loaded = time.perf_counter_ns()
        classifier.scores(pixels[None])
        first = time.perf_counter_ns()
        classifier.tune()
        rows = _timed_runs(classifier, source, warmup, runs)
        decode_ns, preprocess_ns, inference_ns, whole_ns = zip(*rows)
        return TimingSample(
            engine=classifier.engine_name,
            engine_version=classifier.engine_version,
            threads=classifier.threads,
            warmup_runs=warmup,
            import_ns=imported - start,
            load_ns=loaded - imported,
            first_inference_ns=first - loaded,
            decode_ns=decode_ns,
            preprocess_ns=preprocess_ns,
            inference_ns=inference_ns,
            whole_ns=whole_ns,
            peak_rss_bytes=peak_rss_bytes(),
            file_sha256=classifier.bundle.file_sha256,
            image="golden" if image is None else os.fsdecode(image),
        )


def peak_rss_bytes() -> Optional[int]:
    """The most physical memory that this process has held, in bytes; None where unknown.

    Linux tells it in /proc (``VmHWM``). ``getrusage`` is the fallback only: on Linux its
    ``ru_maxrss`` of a new process starts at the peak of the process that started it.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _source(bundle: Bundle, image: Optional[Union[str, os.PathLike[str]]]) -> Union[str, bytes]:
    if image is not None:
        path = os.fsdecode(image)
        if not path:
            raise ImageUnreadable("the image path is empty: expected an image file")
        return path
    golden = bundle.manifest.golden
    if golden is None:
        raise SelfTestFailed(
            f"{bundle.path}: no golden picture inside; name a picture, or export the model again"
        )
    return golden_png(golden)


def _timed_runs(
    classifier: Classifier, source: Union[str, bytes], warmup: int, runs: int
) -> list[tuple[int, int, int, int]]:
    """``runs`` rows of decode, pre-processing, inference and whole, in nanoseconds."""
    clock = time.perf_counter_ns
    rows = []
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(warmup + runs):
            start = clock()
            spent = classifier.classify(source).timings
            whole_ns = clock() - start
            rows.append((spent.decode_ns, spent.preprocess_ns, spent.inference_ns, whole_ns))
    finally:
        if was_enabled:
            gc.enable()
    return rows[warmup:]
