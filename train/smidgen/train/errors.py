"""What can go wrong while training, as one tree.

    SmidgenError                     (smidgen.runtime.errors)
    └── TrainError                   every error of this room
        ├── DataError                the folder of images cannot be trained on
        ├── WeightsError             the weights to start from
        │   ├── WeightsMissing       the package or file that holds them is not there
        │   ├── WeightsUnsafe        the file asks for code to be run: refused
        │   └── WeightsMismatch      the file is damaged, or of another architecture
        ├── RunError                 the Run folder
        │   ├── NotARun              no Run, or an unfinished one where a finished one is needed
        │   └── RunMismatch          it belongs to another recipe or to other images
        ├── BackendError             Keras runs on another backend than the recipe asks for
        ├── HostsError               the processes that train together do not find each other
        │   └── HostLost             one of them ended before the others
        ├── DiskSpaceError           too little free space for the decoded images
        └── TrainingDiverged         the loss is no longer a finite number

Messages give the value, what was allowed, and the next step, in one line.
"""

from __future__ import annotations

from smidgen.runtime.errors import SmidgenError


class TrainError(SmidgenError):
    """Root of the errors of ``smidgen.train``."""


class DataError(TrainError):
    """The folder of images cannot be trained on."""


class WeightsError(TrainError):
    """The weights to start from cannot be used."""


class WeightsMissing(WeightsError):
    """The package or the file that holds the weights is not there."""


class WeightsUnsafe(WeightsError):
    """The weights file asks for code to be run."""


class WeightsMismatch(WeightsError):
    """The weights file is damaged, or belongs to another architecture."""


class RunError(TrainError):
    """The Run folder cannot be used."""


class NotARun(RunError):
    """The folder holds no Run, or an unfinished one where a finished one is needed."""


class RunMismatch(RunError):
    """The folder holds a Run of another recipe or of other images."""


class BackendError(TrainError):
    """Keras runs on another backend than the recipe asks for."""


class HostsError(TrainError):
    """The processes that train together do not find each other, or the recipe is for one only."""


class HostLost(HostsError):
    """Another process of this training ended, or cannot be reached any more."""


class DiskSpaceError(TrainError):
    """There is too little free space for the decoded images."""


class TrainingDiverged(TrainError):
    """The loss is no longer a finite number."""
