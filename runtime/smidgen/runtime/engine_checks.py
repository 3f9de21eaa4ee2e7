"""What every engine checks the same way: its library, its tensors, its threads, its errors."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from smidgen.runtime.errors import EngineFailed, EngineMissing
from smidgen.runtime.manifest import TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Scores = npt.NDArray[np.float32]

ModelFormat = Literal["tflite", "onnx"]
MAX_THREADS = 256

_MISSING_OPERATOR = (
    r"builtin opcode '(\w+)'(?: (version '\d+'))?",  # TFLite: none, or none of that version
    r"unresolved custom op: ([^\s.]+)()",  # TFLite
    r"builtin_code out of range: (\d+)()",  # TFLite: newer than the library
    r"No Op registered for (\S+)()",  # ONNX Runtime: unknown to its standard
    r"([\w.:]+)\(-?\d+\) is not a registered function/op()",  # ONNX Runtime: a foreign domain
    r"Could not find an implementation for (\w+(?:\(\d+\))?)()",  # ONNX Runtime: no kernel
)


def check_threads(threads: int) -> None:
    """Raises EngineFailed unless ``threads`` is a whole number from 1 to MAX_THREADS."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise EngineFailed(f"threads = {threads!r}: expected a whole number, 1 to {MAX_THREADS}")


def refuse(engine: str, kind: str, given: Sequence[str]) -> None:
    """Raises EngineFailed when options were given of a ``kind`` that the engine does not have."""
    if given:
        raise EngineFailed(
            f"{engine} has no {kind} (given: {', '.join(given)}): TFLite engines have delegates, "
            "ONNX Runtime has execution providers; leave them out"
        )


def dequantize(stored: npt.NDArray[Any], scale: float, zero_point: int) -> Scores:
    """``real = (stored - zero_point) * scale`` as float32; float32 is returned as it is."""
    if stored.dtype == np.float32:
        return stored
    real: Scores = (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return real


def stored_pixels(pixels: Pixels, dtype: str) -> npt.NDArray[Any]:
    """Pixels 0..255 as a model's input stores them.

    uint8: as they are; int8: less 128; float32: the same numbers.
    """
    if dtype == "int8":
        return (pixels ^ np.uint8(128)).view(np.int8)
    return pixels.astype(np.float32) if dtype == "float32" else pixels


def check_tensor(engine: str, what: str, shape: Any, dtype: Any, spec: TensorSpec) -> None:
    """The model's tensor against the manifest's; -1 fits any size."""
    found = tuple(int(size) for size in shape)
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    fits = len(found) == len(spec.shape) and all(
        a == b or -1 in (a, b) for a, b in zip(found[1:], spec.shape[1:])
    )
    batch = found[0] in (1, -1) if found else False
    if not fits or not batch or name != spec.dtype:
        raise EngineFailed(
            f"{engine}: the model's {what} is {name} {found}, the manifest says {spec.dtype} "
            f"{spec.shape}; export it again"
        )


def is_installed(module: str) -> bool:
    """Whether the module's top package can be found; nothing is imported."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def import_library(engine: str, module: str) -> Any:
    """The module. Raises EngineMissing when it does not import."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # a wheel built for another numpy fails in many ways
        raise EngineMissing(
            f"{engine} is installed but does not import ({_one_line(error)}); reinstall it"
        ) from error


def installed_version(distribution: str, module: str) -> str:
    """What the imported package says, else its distribution, else ``"unknown"``.

    The folder beside the package has the version in its name; ``importlib.metadata`` is asked where
    there is none, since importing it takes longer than a small model.
    """
    top = module.partition(".")[0]
    version = getattr(sys.modules.get(top), "__version__", None)
    if version is not None:
        return str(version)
    name = distribution.replace("-", "_").lower() + "-"
    for entry in _entries_beside(top):
        if entry.lower().startswith(name) and entry.endswith(".dist-info"):
            return entry[len(name) : -len(".dist-info")]
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _entries_beside(package: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return []
        return [entry.name for entry in Path(spec.origin).parents[1].iterdir()]
    except (ImportError, ValueError, OSError):
        return []


def failed(engine: str, what: str, error: Exception) -> EngineFailed:
    """The one line for an engine's own exception; names the operator that the engine lacks."""
    text = str(error)
    for pattern in _MISSING_OPERATOR:
        match = re.search(pattern, text)
        if match is not None:
            name = match.group(1) + (f" {match.group(2)}" if match.group(2) else "")
            return EngineFailed(
                f"{engine} {what}: it has no operator {name} ({_one_line(error)}); upgrade the "
                "engine, or export without it"
            )
    return EngineFailed(f"{engine} {what} ({_one_line(error)})")


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
