"""TensorFlow Lite models, through whichever wheel carries the ``Interpreter``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smidgen.runtime.engine_checks import (
    ModelFormat,
    check_minimum,
    check_tensor,
    check_threads,
    dequantize,
    failed,
    import_library,
    installed_version,
    is_installed,
    stored_pixels,
)
from smidgen.runtime.errors import EngineFailed
from smidgen.runtime.manifest import Manifest

if TYPE_CHECKING:
    from smidgen.runtime.engine import EngineOptions, Pixels, Scores, Session

_SCALE_RELATIVE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class TfliteEngine:
    """A wheel with TensorFlow Lite's Python ``Interpreter``.

    ``numbering`` is the manifest's ``minimum_runtime`` key that this wheel's versions compare with:
    LiteRT counts from 1 again, so TensorFlow's numbers say nothing about it.
    """

    name: str
    module: str
    distribution: str
    numbering: str
    model_format: ModelFormat = "tflite"

    def available(self) -> bool:
        """See Engine."""
        return is_installed(self.module)

    def load(self) -> None:
        """See Engine."""
        self._interpreter_class()

    def version(self) -> str:
        """See Engine."""
        return installed_version(self.distribution, self.module)

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine."""
        check_threads(options.threads)
        check_minimum(self.name, self.version(), self.numbering, manifest)
        interpreter_class = self._interpreter_class()
        try:
            interpreter = interpreter_class(model_content=data, num_threads=options.threads)
            interpreter.allocate_tensors()
        except Exception as error:  # RuntimeError, ValueError, ... by wheel and version
            raise failed(self.name, "refused the model", error) from error
        return TfliteSession(self.name, interpreter, manifest)

    def _interpreter_class(self) -> Any:
        module = import_library(self.name, self.module)
        return module.lite.Interpreter if self.module == "tensorflow" else module.Interpreter


class TfliteSession:
    """One ``Interpreter``, fed picture by picture (batch 1)."""

    def __init__(self, engine: str, interpreter: Any, manifest: Manifest) -> None:
        """Raises EngineFailed when the model's tensors are not those of the manifest."""
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineFailed(
                f"{engine}: {len(inputs)} inputs and {len(outputs)} outputs in the model, "
                "expected 1 and 1; export it again"
            )
        self._engine, self._input_dtype = engine, manifest.input.dtype
        self._interpreter: Any = interpreter
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        check_tensor(engine, "input", inputs[0]["shape"], inputs[0]["dtype"], manifest.input)
        check_tensor(engine, "output", outputs[0]["shape"], outputs[0]["dtype"], manifest.output)
        scale, zero_point = outputs[0]["quantization"]
        self._scale: float = scale or 1.0  # 0.0 says: not quantized
        self._zero_point: int = zero_point if scale else 0
        expected = manifest.output
        near = abs(self._scale - expected.scale) <= _SCALE_RELATIVE_TOLERANCE * expected.scale
        if not near or self._zero_point != expected.zero_point:
            raise EngineFailed(
                f"{engine}: output scale {self._scale:g}, zero point {self._zero_point} in the "
                f"model, {expected.scale:g} and {expected.zero_point} in the manifest; "
                "export it again"
            )

    def run(self, pixels: Pixels) -> Scores:
        """See Session."""
        interpreter = self._interpreter
        if interpreter is None:
            raise EngineFailed(f"{self._engine}: the session is closed; open the Bundle again")
        rows = []
        try:
            for picture in stored_pixels(pixels, self._input_dtype):
                interpreter.set_tensor(self._input, picture[np.newaxis])
                interpreter.invoke()
                rows.append(interpreter.get_tensor(self._output)[0])
        except Exception as error:  # RuntimeError, ValueError, ... by wheel and version
            raise failed(self._engine, "failed while running", error) from error
        return dequantize(np.stack(rows), self._scale, self._zero_point)

    def close(self) -> None:
        """See Session."""
        self._interpreter = None
