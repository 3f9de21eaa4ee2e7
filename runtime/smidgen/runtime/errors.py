"""What can go wrong on the device, as one tree.

    SmidgenError                  every error that smidgen raises on purpose, in any room
    └── RuntimeRoomError          every error of this wheel
        ├── SchemaError           a mapping (recipe, manifest) does not fit its dataclass
        ├── BundleError           the file is not a Bundle that can be trusted
        │   ├── NotABundle        another kind of file, or a model without a manifest
        │   ├── BundleDamaged     cut short or changed after it was written
        │   └── BundleUntrusted   not signed with the trusted key
        ├── SigningMissing        the package that signs and verifies is not installed
        ├── ImageError            the picture cannot become an input tensor
        │   ├── ImageUnreadable   corrupt, truncated or of an unknown format
        │   ├── ImageTooLarge     more pixels than the limit (a decompression bomb)
        │   └── ImageArrayInvalid an array of the wrong shape, dtype or range
        ├── EngineError           the inference engine
        │   ├── EngineMissing     none installed that runs this Bundle
        │   └── EngineFailed      installed, but refused or failed on this Bundle
        ├── ArgumentInvalid       a value passed to a function is not allowed (also a ValueError)
        ├── SelfTestFailed        the golden sample does not come out as it should
        ├── StoreError            a folder of models on a device
        │   ├── StoreEmpty        holds no model that is intact
        │   └── StoreBusy         another process is changing it
        └── OutputError           a result file cannot be written (disk full, no permission)

    UserWarning
    └── SlowEngineWarning         the engine runs this Bundle many times slower than another would

Messages give the value, what was allowed, and the next step, in one line.
The other rooms hang their own trees under ``SmidgenError``.
"""

from __future__ import annotations


class SmidgenError(Exception):
    """Root of every error that smidgen raises on purpose. ``str()`` is one line for a user."""


class RuntimeRoomError(SmidgenError):
    """Root of the errors of ``smidgen.runtime``."""


class SchemaError(RuntimeRoomError):
    """A mapping does not fit the dataclass that it should become."""


class BundleError(RuntimeRoomError):
    """The file is not a Bundle that can be trusted."""


class NotABundle(BundleError):
    """The file is of another kind, or a model without smidgen's manifest."""


class BundleDamaged(BundleError):
    """The file was cut short, or changed after it was written."""


class BundleUntrusted(BundleError):
    """The file was not signed with the trusted key, or holds bytes that nothing vouches for."""


class SigningMissing(RuntimeRoomError):
    """The package that signs and verifies is not installed."""


class ImageError(RuntimeRoomError):
    """The picture cannot become an input tensor."""


class ImageUnreadable(ImageError):
    """The picture is corrupt, truncated or of an unknown format."""


class ImageTooLarge(ImageError):
    """The picture has more pixels than the limit."""


class ImageArrayInvalid(ImageError):
    """The array has the wrong shape, dtype or range."""


class EngineError(RuntimeRoomError):
    """The inference engine cannot do its work."""


class EngineMissing(EngineError):
    """No installed engine runs this Bundle."""


class EngineFailed(EngineError):
    """The engine refused the Bundle or failed while running it."""


class ArgumentInvalid(RuntimeRoomError, ValueError):
    """A value passed to a function is not allowed."""


class SelfTestFailed(RuntimeRoomError):
    """The golden sample did not come out as the manifest says."""


class OutputError(RuntimeRoomError):
    """A result file could not be written."""


class StoreError(RuntimeRoomError):
    """A folder of models on a device cannot do what was asked."""


class StoreEmpty(StoreError):
    """The store holds no model that is intact."""


class StoreBusy(StoreError):
    """Another process is changing the store."""


class SlowEngineWarning(UserWarning):
    """The engine runs this Bundle many times slower than another one would."""
