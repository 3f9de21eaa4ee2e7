"""TensorFlow Lite for Microcontrollers, simulated: a microcontroller's answers on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from smidgen.runtime.engine_checks import check_threads, failed, import_library, refuse
from smidgen.runtime.manifest import Manifest
from smidgen.runtime.tflite_engine import TfliteEngine, TfliteSession

if TYPE_CHECKING:
    from smidgen.runtime.engine import EngineOptions, Session

_FIRST_ARENA_BYTES = 1 << 22
_LARGEST_ARENA_BYTES = 1 << 28


class MicroEngine(TfliteEngine):
    """The wheel ``tflite-micro``: int8 Bundles, one thread, reference kernels, no delegates.

    The tensor arena is doubled from 4 MiB until the model fits; each try that failed leaves a line
    of the library's own on standard error.
    """

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine; any number of ``threads`` is taken, and one is used."""
        check_threads(options.threads)
        refuse(self.name, "execution providers", options.providers)
        refuse(self.name, "delegates", options.delegates)
        create = import_library(self.name, self.module).Interpreter.from_bytes
        return TfliteSession(
            self.name, _Interpreter(fitting(self.name, create, data)), data, manifest
        )


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
        self.set_tensor = lambda index, value: inner.set_input(value, index)
        self.get_tensor, self.invoke = inner.get_output, inner.invoke
        self.get_input_details = lambda: [{**inner.get_input_details(0), "index": 0}]
        self.get_output_details = lambda: [{**inner.get_output_details(0), "index": 0}]
