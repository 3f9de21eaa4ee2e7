"""``classify()`` and the loop written by hand by turns, photo after photo, in one process.

A script, run by the contest: MODEL PHOTO RUNS CROP_FRACTION FILTER. What slows the machine
for a moment slows both, so that a difference of some percent can be seen.
"""

import json
import runpy
import sys
import time
from pathlib import Path

from smidgen.runtime import Classifier
from smidgen.runtime.timing import peak_rss_bytes


def main() -> None:
    model, photo, runs, crop_fraction, resample = sys.argv[1:6]
    script = runpy.run_path(str(Path(__file__).with_name("by_hand_worker.py")))
    by_hand = script["ByHand"](model, float(crop_fraction), resample)
    classifier = Classifier(model, threads=1)
    ours = classifier.classify(photo).top[0].index
    if by_hand(photo) != ours:
        sys.exit(f"{photo}: classify() and the loop written by hand give two labels; not compared")
    print(json.dumps({"answer": ours, "first_ns": 0}))
    contenders = [("classify()", classifier.classify), ("by hand", by_hand)]
    times: dict[str, list[int]] = {name: [] for name, _ in contenders}
    for _ in range(int(runs)):
        for name, call in contenders:
            start = time.perf_counter_ns()
            call(photo)
            times[name].append(time.perf_counter_ns() - start)
        contenders.reverse()
    print(json.dumps({"runs_ns": times, "peak_rss_bytes": peak_rss_bytes() or 0}))


if __name__ == "__main__":
    main()
