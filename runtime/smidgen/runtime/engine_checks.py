"""What every engine checks the same way: its library, its versions, its tensors, its threads."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from smidgen.runtime.errors import EngineFailed, EngineMissing
from smidgen.runtime.manifest import Manifest, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Scores = npt.NDArray[np.float32]

ModelFormat = Literal["tflite", "onnx"]
MAX_THREADS = 256


def check_threads(threads: int) -> None:
    """Raises EngineFailed unless ``threads`` is a whole number from 1 to MAX_THREADS."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise EngineFailed(f"threads = {threads!r}: expected a whole number, 1 to {MAX_THREADS}")


def check_minimum(engine: str, version: str, numbering: str, manifest: Manifest) -> None:
    """Raises EngineFailed when the manifest asks for a newer engine, where versions compare."""
    minimum = manifest.minimum_runtime.get(numbering)
    if minimum is None:
        return
    found, needed = _version_numbers(version), _version_numbers(minimum)
    if found and needed and found < needed:
        raise EngineFailed(
            f"{engine} {version} is too old for this Bundle, which needs {minimum} or newer; "
            "upgrade it"
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
            f"{engine} is installed but does not import ({_first_line(error)}); reinstall it"
        ) from error


def installed_version(distribution: str, module: str) -> str:
    """The distribution's version, else the package's own word, else ``"unknown"``."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        package = sys.modules.get(module.partition(".")[0])
        return str(getattr(package, "__version__", "unknown"))


def _version_numbers(text: str) -> tuple[int, ...]:
    """The leading dotted numbers, trailing zeros dropped; () for anything else."""
    match = re.match(r"\d+(\.\d+)*", text.strip())
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def failed(engine: str, what: str, error: Exception) -> EngineFailed:
    """The one line for an engine's own exception."""
    return EngineFailed(f"{engine} {what} ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
