"""The images that set the ranges of int8 activations: from the training split only.

A held-out image among them would make the gate's answer worthless, so each is checked by content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import CalibrationError
from smidgen.export.pictures import Picture, hash_of_hashes, pixel_batches
from smidgen.runtime.manifest import Preprocessing

FEWEST_IMAGES = 10


@dataclass(frozen=True)
class Calibration:
    """The chosen images in their fixed order, and how they become pixels."""

    pictures: tuple[Picture, ...]
    preprocessing: Preprocessing

    @property
    def sha256(self) -> str:
        """SHA-256 over the content hashes of the images."""
        return hash_of_hashes(self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def pixels(self) -> Iterator[NDArray[np.uint8]]:
        """The images one by one, ``(1, height, width, 3) uint8, 0..255``, decoded as they come.

        Two pixels of the first image are set to 0 and to 255 in all channels. So the calibrated
        range of the input is exactly that of a pixel, and a ``uint8`` pixel enters the quantized
        graph as it is; two pixels of one image do not move the ranges of the layers behind it.
        """
        is_first = True
        for batch in pixel_batches(self.pictures, self.preprocessing, 16):
            for pixels in batch:
                if is_first:
                    pixels[0, 0, :], pixels[-1, -1, :] = 0, 255
                    is_first = False
                yield pixels[np.newaxis]


def choose(
    pool: Sequence[Picture], held_out: Sequence[Picture], count: int, preprocessing: Preprocessing
) -> Calibration:
    """Up to ``count`` pictures of ``pool``, spread evenly over the classes, ordered by hash.

    The choice depends on the contents alone, not on names or on the order of ``pool``.

    Raises:
        CalibrationError: fewer than 10 images, or one of the pool is held out for the gate.
    """
    refuse_held_out(pool, held_out)
    if len(pool) < FEWEST_IMAGES:
        raise CalibrationError(
            f"int8 needs calibration images, at least {FEWEST_IMAGES} (200 are better), got "
            f"{len(pool)}: add training images (--images FOLDER for a pretrained model), or export "
            'schemes = ["float32"]'
        )
    chosen = sorted(in_turn(pool)[:count], key=lambda picture: picture.sha256)
    return Calibration(tuple(chosen), preprocessing)


def in_turn(pool: Sequence[Picture]) -> list[Picture]:
    """All of ``pool``, one of each class in turn, in the order of their hashes."""
    by_class: dict[int | None, list[Picture]] = defaultdict(list)
    for picture in sorted(pool, key=lambda picture: picture.sha256):
        by_class[picture.label].append(picture)
    queues = [
        by_class[label] for label in sorted(by_class, key=lambda label: (label is None, label))
    ]
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def refuse_held_out(pool: Sequence[Picture], held_out: Sequence[Picture]) -> None:
    """Raises CalibrationError where a picture of ``pool`` has the content of a held-out one."""
    held = {picture.sha256 for picture in held_out}
    for picture in pool:
        if picture.sha256 in held:
            raise CalibrationError(
                f"{picture.path} is held out for the gate and must not be used for calibration: "
                "make the splits again (train anew)"
            )
