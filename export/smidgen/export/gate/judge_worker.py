"""Runs one candidate: ``python -m smidgen.export.gate.judge_worker BUNDLE TASK OUT``.

Uses nothing but ``smidgen.runtime``, as a device does; a model file that kills the interpreter
kills this process alone. ``TASK`` is a JSON file with
``{"pictures": [[path, sha256, turn], ...]}`` or ``{"pixels": "FILE.npy"}``
(``(N, H, W, 3) uint8``). ``OUT`` becomes an ``.npz`` file with ``scores`` ``(N, classes) float32``
and ``engine``. A line ``done N`` on stdout for each batch of N; on failure one line on stderr and
exit status 1; 3 where the answers cannot be written, 4 where a picture cannot be used.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import SourceError
from smidgen.export.pictures import Picture, pixel_batches
from smidgen.runtime.classifier import Classifier
from smidgen.runtime.errors import OutputError, SmidgenError
from smidgen.runtime.files import replacing
from smidgen.runtime.manifest import Preprocessing

STATUS_NO_SPACE = 3
STATUS_PICTURE = 4

_BATCH = 32


def run(bundle: str, task: str, out: str) -> None:
    """Answer the whole task and write ``out``. Raises SmidgenError."""
    scores = []
    with Classifier(bundle, threads=min(4, os.cpu_count() or 1)) as classifier:
        content = json.loads(Path(task).read_text(encoding="utf-8"))
        for pixels in _batches(content, classifier.manifest.preprocessing):
            scores.append(classifier.scores(pixels))
            print(f"done {len(pixels)}", flush=True)
        engine = f"{classifier.engine_name} {classifier.engine_version}"
        classes = len(classifier.manifest.labels)
    rows = np.concatenate([np.zeros((0, classes), np.float32), *scores])
    with replacing(out) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, scores=rows, engine=np.asarray(engine))


def _batches(
    content: dict[str, object], preprocessing: Preprocessing
) -> Iterator[NDArray[np.uint8]]:
    if "pixels" in content:
        yield np.load(str(content["pixels"]))
        return
    listed = content["pictures"]
    assert isinstance(listed, list)
    pictures = [Picture(path, sha256, None, turn) for path, sha256, turn in listed]
    yield from pixel_batches(pictures, preprocessing, _BATCH)


def main(arguments: list[str]) -> int:
    """The exit status, after one line on stderr where it is not 0."""
    try:
        run(*arguments)
    except SmidgenError as error:
        with contextlib.suppress(OSError):  # no space for this line either
            print(error, file=sys.stderr)
        if isinstance(error, OutputError):
            return STATUS_NO_SPACE
        return STATUS_PICTURE if isinstance(error, SourceError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
