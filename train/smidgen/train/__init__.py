"""Train: a folder of images in, a Run folder with a fine-tuned network out.

``TrainRecipe`` says what to train; ``smidgen.train.loop.train`` trains it; ``Run`` is the folder.
Importing this package is light: Keras is imported when training starts.
"""

from smidgen.train.data import Dataset, Example, Skipped
from smidgen.train.errors import TrainError
from smidgen.train.recipe import (
    DataRecipe,
    DistillationRecipe,
    ModelRecipe,
    ScheduleRecipe,
    TrainRecipe,
)
from smidgen.train.run import Run

__all__ = [
    "DataRecipe",
    "Dataset",
    "DistillationRecipe",
    "Example",
    "ModelRecipe",
    "Run",
    "ScheduleRecipe",
    "Skipped",
    "TrainError",
    "TrainRecipe",
]
