"""smidgen.runtime: runs smidgen's image-classifier files. Imports numpy and nothing else.

>>> from smidgen.runtime import Classifier
>>> Classifier("flowers-int8.tflite").classify("rose.jpg").label  # doctest: +SKIP
'rose'
"""

from typing import TYPE_CHECKING, Any

from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classification, Classifier, Prediction, Timings
from smidgen.runtime.errors import (
    ArgumentInvalid,
    BundleDamaged,
    BundleError,
    BundleUntrusted,
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
    SigningMissing,
    SlowEngineWarning,
    SmidgenError,
    StoreBusy,
    StoreEmpty,
    StoreError,
)
from smidgen.runtime.manifest import Manifest, Preprocessing
from smidgen.runtime.selftest import selftest
from smidgen.runtime.stream import FrameResult, frames_of

if TYPE_CHECKING:
    from smidgen.runtime.store import Installed, ModelStore

__version__ = "0.1.0"

__all__ = [
    "ArgumentInvalid",
    "Bundle",
    "BundleDamaged",
    "BundleError",
    "BundleUntrusted",
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
    "Installed",
    "Manifest",
    "ModelStore",
    "NotABundle",
    "OutputError",
    "Prediction",
    "Preprocessing",
    "RuntimeRoomError",
    "SchemaError",
    "SelfTestFailed",
    "SigningMissing",
    "SlowEngineWarning",
    "SmidgenError",
    "StoreBusy",
    "StoreEmpty",
    "StoreError",
    "Timings",
    "__version__",
    "frames_of",
    "selftest",
]


def __getattr__(name: str) -> Any:
    """The store, which a program that keeps none does not load (PEP 562)."""
    if name in ("Installed", "ModelStore"):
        from smidgen.runtime import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
