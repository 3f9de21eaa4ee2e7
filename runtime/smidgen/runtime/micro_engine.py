"""TensorFlow Lite for Microcontrollers, simulated: a microcontroller's answers on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from smidgen.runtime.engine_checks import (
    ModelFormat,
    check_threads,
    failed,
    import_library,
    installed_version,
    is_installed,
)
from smidgen.runtime.errors import EngineFailed
from smidgen.runtime.manifest import Manifest
from smidgen.runtime.tflite_engine import TfliteSession, refuse_providers

if TYPE_CHECKING:
    from smidgen.runtime.engine import EngineOptions, Session

_FIRST_ARENA_BYTES = 1 << 22
_LARGEST_ARENA_BYTES = 1 << 28


@dataclass(frozen=True)
class MicroEngine:
    """The wheel ``tflite-micro``: int8 Bundles, one thread, reference kernels.

    The tensor arena is doubled from 4 MiB until the model fits; each try that failed leaves a line
    of the library's own on standard error.
    """

    name: str = "tflite-micro"
    model_format: ModelFormat = "tflite"

    def available(self) -> bool:
        """See Engine."""
        return is_installed("tflite_micro")

    def load(self) -> None:
        """See Engine."""
        self._library()

    def version(self) -> str:
        """See Engine."""
        return installed_version("tflite-micro", "tflite_micro")

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine; any number of ``threads`` is taken, and one is used."""
        check_threads(options.threads)
        refuse_providers(self.name, options)
        if options.delegates:
            raise EngineFailed(f"{self.name} has no delegates; leave {options.delegates} out")
        inner = fitting(self.name, self._library().Interpreter.from_bytes, data)
        return TfliteSession(self.name, _Interpreter(inner), data, manifest)

    def _library(self) -> Any:
        return import_library(self.name, "tflite_micro.python.tflite_micro.runtime")


def fitting(engine: str, create: Callable[..., Any], data: bytes) -> Any:
    """What ``create(data, arena_size=...)`` gives in the first arena that is large enough.

    Raises EngineFailed when none is; whatever is wrong, tflite-micro raises the same error.
    """
    arena_bytes = _FIRST_ARENA_BYTES
    while True:
        try:
            return create(data, arena_size=arena_bytes)
        except Exception as error:
            arena_bytes *= 2
            if arena_bytes > _LARGEST_ARENA_BYTES:
                what = "refused the model, in 256 MiB too; its own words are on standard error"
                raise failed(engine, what, error) from error


class _Interpreter:
    """tflite-micro's interpreter with the methods of TensorFlow Lite's, as far as they are used."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.set_tensor = lambda index, value: inner.set_input(value, index)
        self.get_tensor, self.invoke = inner.get_output, inner.invoke

    def get_input_details(self) -> list[dict[str, Any]]:
        return [_details(self._inner.get_input_details(0))]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [_details(self._inner.get_output_details(0))]


def _details(found: dict[str, Any]) -> dict[str, Any]:
    """With position and quantization as TensorFlow Lite gives them."""
    parameters = found["quantization_parameters"]
    pairs = [*zip(parameters["scales"], parameters["zero_points"])] or [(0.0, 0)]
    scale, zero_point = pairs[0]
    return {**found, "index": 0, "quantization": (float(scale), int(zero_point))}
