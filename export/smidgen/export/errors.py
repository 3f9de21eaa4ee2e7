"""What can go wrong in export, as one tree.

    SmidgenError
    └── ExportError               every error that this room raises on purpose
        ├── SourceError           the float model or its images are not there or not usable
        │   └── BackendError      Keras runs on another backend than TensorFlow in this process
        ├── FoldError             a BatchNorm that cannot be folded into the layer before it
        ├── PruningError          no channels can be removed, or not as many as were asked for
        ├── CopyError             a layer has no counterpart in tf_keras, or the copy differs
        ├── QatError              rounding to int8 cannot be trained with on this network
        ├── StructureError        zeros or clusters are not there, or the network cannot take them
        ├── ConversionError       a converter failed, or its file is not what was asked for
        │   ├── PairingError      the float and the integer TFLite file are not one network
        │   └── TargetError       the file does not run in the runtime that it was asked for
        ├── CalibrationError      too few images, or one of them is held out for the gate
        ├── MetadataError         the manifest or labels cannot be put into the model file
        ├── DecisionError         no threshold keeps the accuracy of answers that was asked for
        ├── GateError             the gate cannot be run on these answers (a failure, never a pass)
        └── CandidateFailed       the process that runs one model file died, hung or refused it

Every message is one line: what was wrong, what was expected, what to do.
"""

from __future__ import annotations

from smidgen.runtime.errors import SmidgenError


class ExportError(SmidgenError):
    """Root of the errors of ``smidgen.export``."""


class SourceError(ExportError):
    """The float model, or the images that go with it, are missing or not usable."""


class BackendError(SourceError):
    """Keras runs on another backend than TensorFlow in this process."""


class FoldError(ExportError):
    """A BatchNorm cannot be folded into the layer before it."""


class PruningError(ExportError):
    """Channels cannot be removed, or not as many as were asked for."""


class CopyError(ExportError):
    """A network cannot be copied to tf_keras, or its copy answers otherwise."""


class QatError(ExportError):
    """A network cannot be trained with int8's rounding."""


class StructureError(ExportError):
    """A pass did not leave the zeros, clusters or ranges that it was asked for."""


class ConversionError(ExportError):
    """A converter failed, or made a file that is not what was asked for."""


class PairingError(ConversionError):
    """The operators of the float and the integer TFLite file do not correspond."""


class TargetError(ConversionError):
    """A file does not run in the runtime that it was asked for, or there is no such runtime."""


class CalibrationError(ExportError):
    """The calibration images are too few, or overlap with the held-out ones."""


class MetadataError(ExportError):
    """The manifest or the labels cannot be put into the model file."""


class DecisionError(ExportError):
    """The accuracy of answers that was asked for cannot be promised of a file."""


class GateError(ExportError):
    """The gate cannot be run; a gate that did not run is a failure."""


class CandidateFailed(ExportError):
    """The child process that runs one model file died, hung, or refused the file."""
