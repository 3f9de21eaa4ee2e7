"""How much larger than the network's input the training images are decoded. Imports no Keras."""

from __future__ import annotations

from smidgen.train.recipe import ScheduleRecipe


def margin_of(schedule: ScheduleRecipe, image_size: int) -> int:
    """Pixels that the sides of the training images have beyond ``image_size``: even, or 0.

    The policies that crop and zoom have an eighth of the input's side, so that a view of 8/9 of the
    picture still has a pixel of its own for every pixel of the input; with ``random_crop`` a
    crop of middle size has; the others have none.
    """
    if schedule.random_crop < 1.0:
        middle = (schedule.random_crop + 1.0) / 2
        return 2 * round(image_size * (1.0 / middle - 1.0) / 2)
    if schedule.augmentation in ("standard", "strong"):
        return 2 * round(image_size / 16)
    return 0
