"""MediaPipe's ImageClassifier on the same file.

A script, run by the contest with a Python that has mediapipe: MODEL PHOTO RUNS, and what
others need. It stretches the whole photo, as it does unless told otherwise.
"""

# ruff: noqa: E402  (the clock starts before the imports: they are part of a start)
import time

STARTED_NS = time.perf_counter_ns()

import json
import sys

import mediapipe
from mediapipe.tasks.python import BaseOptions, vision


def main() -> None:
    model, photo, runs = sys.argv[1:4]
    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=model), max_results=1
    )
    with vision.ImageClassifier.create_from_options(options) as classifier:

        def classify() -> int:
            found = classifier.classify(mediapipe.Image.create_from_file(photo))
            return int(found.classifications[0].categories[0].index)

        index = classify()
        print(json.dumps({"answer": index, "first_ns": time.perf_counter_ns() - STARTED_NS}))
        sys.stdout.flush()
        times = []
        for _ in range(int(runs)):
            start = time.perf_counter_ns()
            classify()
            times.append(time.perf_counter_ns() - start)
    with open("/proc/self/status", encoding="ascii") as lines:
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"runs_ns": {"MediaPipe": times}, "peak_rss_bytes": peak}))


if __name__ == "__main__":
    main()
