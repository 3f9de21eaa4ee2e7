"""``data.labels = "orientation"``: upright images; the turn that they are given is the label."""

from __future__ import annotations

from pathlib import Path

from smidgen.train.data.listing import File, Listing, bases, files_below, group_of, is_image
from smidgen.train.errors import DataError
from smidgen.train.recipe import DataRecipe

TURN_LABELS = ("0", "90", "180", "270")
"""Degrees counter-clockwise; the index is ``Example.turn``."""


def list_upright(root: Path, recipe: DataRecipe) -> Listing:
    """Images at any depth of ``root`` or of its ready splits, each once, with the label "0".

    Raises:
        DataError: no image, in ``root`` or in one of the ready splits.
    """
    found, ignored = bases(root)
    files: list[File] = []
    for base in found:
        inside = list(files_below(base.folder))
        images = [path for path in inside if is_image(path)]
        ignored += len(inside) - len(images)
        if not images:
            raise DataError(
                f"{base.folder} holds no image, at any depth: expected upright .jpg, .jpeg, .png, "
                f".webp or .bmp files ({len(inside)} other files were ignored)"
            )
        for path in images:
            group = group_of(path, base, recipe)
            files.append(File(path, TURN_LABELS[0], base.split, group))
    return Listing(tuple(files), TURN_LABELS, ignored)
