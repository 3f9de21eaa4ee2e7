"""``Classifier.classify`` as an application calls it.

A script, run by the contest in a process of its own: MODEL PHOTO RUNS, and what others need.
"""

# ruff: noqa: E402  (the clock starts before the imports: they are part of a start)
import time

STARTED_NS = time.perf_counter_ns()

import json
import sys

from smidgen.runtime import Classifier


def main() -> None:
    model, photo, runs = sys.argv[1:4]
    classifier = Classifier(model, threads=1)
    answer = classifier.classify(photo)
    first_ns = time.perf_counter_ns() - STARTED_NS
    print(json.dumps({"answer": answer.top[0].index, "first_ns": first_ns}))
    sys.stdout.flush()
    times = []
    for _ in range(int(runs)):
        start = time.perf_counter_ns()
        classifier.classify(photo)
        times.append(time.perf_counter_ns() - start)
    from smidgen.runtime.timing import peak_rss_bytes

    print(json.dumps({"runs_ns": {"classify()": times}, "peak_rss_bytes": peak_rss_bytes() or 0}))


if __name__ == "__main__":
    main()
