"""Where ``smidgen predict --picture`` draws: one sheet, or a file per picture in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smidgen.cli.errors import UsageError
from smidgen.runtime.classifier import Classification
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import decode, upright_rgb

if TYPE_CHECKING:
    from smidgen.train.seeing.bars import Answer

_LONGEST_SIDE = 480
_OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".svg", ".pdf")


class AnswerPictures:
    """Draws each answer beside a bar chart of its probabilities.

    A name that ends in ``.png`` is one sheet of all pictures; any other name is a folder, which
    gets ``<name of the picture>-answer.png`` for each. Pictures that are asked about are never
    written over.
    """

    def __init__(self, place: str, images: Sequence[str]) -> None:
        """Raises UsageError where ``place`` is neither, or one of the pictures."""
        from smidgen.train.seeing.bars import MOST_ON_A_SHEET

        self._place = Path(place)
        suffix = self._place.suffix.lower()
        self._is_sheet = suffix == ".png" and not self._place.is_dir()
        if suffix in _OTHER_FORMATS and not self._place.is_dir():
            raise UsageError(f"--picture {place}: expected a name that ends in .png, or a folder")
        if self._is_sheet and len(images) > MOST_ON_A_SHEET:
            raise UsageError(
                f"--picture {place}: a sheet holds at most {MOST_ON_A_SHEET} pictures, "
                f"{len(images)} were named; name a folder"
            )
        self._taken = {os.path.realpath(image) for image in images}
        if self._is_sheet and os.path.realpath(place) in self._taken:
            raise UsageError(f"--picture {place} is one of the pictures to label; name another")
        if not self._is_sheet and self._place.exists() and not self._place.is_dir():
            raise UsageError(f"--picture {place} is a file: expected a folder, or a name in .png")
        self._sheet: list[Answer] = []

    def add(self, image: str, found: Classification, preprocessing: Preprocessing) -> None:
        """Draw one answer, or keep it for the sheet.

        Raises:
            ImageError: the picture cannot be read.
            OutputError: its file cannot be written.
        """
        from smidgen.train.seeing.bars import Answer, draw_answers

        answer = Answer(
            name=Path(image).name,
            pixels=_small(image, preprocessing),
            labels=tuple(item.label for item in found.top),
            numbers=tuple(item.index for item in found.top),
            probabilities=tuple(item.score for item in found.top),
        )
        if self._is_sheet:
            self._sheet.append(answer)
        else:
            draw_answers([answer], self._free_name(Path(image).stem))

    def finish(self) -> None:
        """Write the sheet, unless no picture could be read. Raises OutputError."""
        from smidgen.train.seeing.bars import draw_answers

        if self._sheet:
            draw_answers(self._sheet, self._place)

    def _free_name(self, stem: str) -> Path:
        number = 1
        while True:
            mark = "" if number == 1 else f"-{number}"
            path = self._place / f"{stem}-answer{mark}.png"
            if os.path.realpath(path) not in self._taken:
                self._taken.add(os.path.realpath(path))
                return path
            number += 1


def _small(image: str, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """The whole picture, upright: ``(H, W, 3) uint8`` RGB, neither side above 480 pixels."""
    picture = upright_rgb(decode(image), preprocessing).copy()
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return np.asarray(picture, np.uint8)
