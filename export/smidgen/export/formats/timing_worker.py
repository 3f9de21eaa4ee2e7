"""Times one ONNX file: ``python -m smidgen.export.formats.timing_worker FILE``.

Prints a JSON list of milliseconds for single runs with batch 1 on one thread, after warm-up. Pixels
are noise; the time of a network does not depend on them. For choosing between files of one network
on the machine that exports; the benchmarks room measures devices.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

_WARM_UP = 5
_RUNS = 30
_MOST_SECONDS = 2.0


def measure(path: str) -> list[float]:
    """Milliseconds of up to 30 runs, or as many as fit into 2 seconds (at least 3)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in image.shape]
    feed = {image.name: np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)}
    for _ in range(_WARM_UP):
        session.run(None, feed)
    times: list[float] = []
    while len(times) < _RUNS and (len(times) < 3 or sum(times) < _MOST_SECONDS * 1000):
        start = time.perf_counter_ns()
        session.run(None, feed)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
