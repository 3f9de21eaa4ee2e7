"""Pictures made of numbers, for judging a model where nobody gave real ones.

They verify that a float32 file computes what the float model computes; they say nothing about
accuracy, and cannot calibrate anything.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from smidgen.export.pictures import Picture

COUNT = 64
_SIDE = 160


def synthetic_pictures(folder: Path) -> tuple[Picture, ...]:
    """Write 64 PNG files to ``folder``: noise at several scales, always the same pixels."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20)
    pictures = []
    for number in range(COUNT):
        cells = 2 ** (1 + number % 6)
        grid = random.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
        image = Image.fromarray(grid).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        path = folder / f"{number:02}.png"
        path.write_bytes(stream.getvalue())
        pictures.append(Picture(str(path), hashlib.sha256(stream.getvalue()).hexdigest()))
    return tuple(pictures)
