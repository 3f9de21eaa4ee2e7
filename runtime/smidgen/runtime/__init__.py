"""smidgen.runtime: runs smidgen's image-classifier files. Imports numpy and nothing else.

>>> from smidgen.runtime import Classifier
>>> Classifier("flowers-int8.tflite").classify("rose.jpg").label  # doctest: +SKIP
'rose'
"""

from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classification, Classifier, Prediction, Timings
from smidgen.runtime.errors import (
    ArgumentInvalid,
    BundleDamaged,
    BundleError,
    EngineError,
    EngineFailed,
    EngineMissing,
    ImageArrayInvalid,
    ImageError,
    ImageTooLarge,
    ImageUnreadable,
    NotABundle,
    OutputError,
    RuntimeRoomError,
    SchemaError,
    SelfTestFailed,
    SmidgenError,
)
from smidgen.runtime.manifest import Manifest, Preprocessing
from smidgen.runtime.selftest import selftest
from smidgen.runtime.stream import FrameResult, frames_of

__version__ = "0.1.0"

__all__ = [
    "ArgumentInvalid",
    "Bundle",
    "BundleDamaged",
    "BundleError",
    "Classification",
    "Classifier",
    "EngineError",
    "EngineFailed",
    "EngineMissing",
    "FrameResult",
    "ImageArrayInvalid",
    "ImageError",
    "ImageTooLarge",
    "ImageUnreadable",
    "Manifest",
    "NotABundle",
    "OutputError",
    "Prediction",
    "Preprocessing",
    "RuntimeRoomError",
    "SchemaError",
    "SelfTestFailed",
    "SmidgenError",
    "Timings",
    "__version__",
    "frames_of",
    "selftest",
]
