"""What the frozen layers make of the images, computed once and kept on disk.

While the first layers of a network do not change, neither do their outputs: for each image, in as
many augmented views as the recipe asks for, they are computed once, and every epoch of the stage
trains the layers behind on them. The first view is the image as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smidgen.runtime.files import replacing
from smidgen.train.pixels.cache_folder import require_space
from smidgen.train.progress import Progress


@dataclass(frozen=True)
class Features:
    """A ``(N, ...) float16`` array, memory-mapped: a source of batches like decoded images."""

    array: np.ndarray

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The features at ``rows``, ``(len(rows), ...) float16``."""
        chosen: np.ndarray = self.array[rows]
        return chosen


def features(
    path: Path,
    shape: tuple[int, ...],
    batches: Callable[[], Iterator[np.ndarray]],
    compute: Callable[[np.ndarray], np.ndarray],
    progress: Progress,
) -> Features:
    """Compute ``shape`` features into ``path``, or open what an earlier call left there.

    Args:
        path: the file, ``.npy``; it has its name only when it is whole.
        shape: of the array, rows first.
        batches: gives the pixels in order, as many in all as there are rows.
        compute: pixels of a batch to their features, ``(n, ...)``.
        progress: is told how many images are done.

    Raises:
        DiskSpaceError: the features would not fit.
        OutputError: the file cannot be written.
    """
    if not path.is_file():
        needed_bytes = 2 * int(np.prod(shape))
        what = f"the features of {shape[0]} images"
        require_space(path.parent, needed_bytes, what, "set schedule.feature_views to less, or 0")
        progress.start("features", shape[0])
        try:
            with replacing(path) as temporary, open(temporary, "wb") as stream:
                np.lib.format.write_array_header_1_0(
                    stream, {"descr": "<f2", "fortran_order": False, "shape": shape}
                )
                for pixels in batches():
                    stream.write(compute(pixels).astype("<f2").tobytes())
                    progress.advance(len(pixels))
        finally:
            progress.finish()
    return Features(np.load(path, mmap_mode="r"))
