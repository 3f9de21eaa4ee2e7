"""TensorFlow Lite models, through whichever wheel carries the ``Interpreter``."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from smidgen.runtime.delegates import LoadDelegate, library_of, load_delegates, wants_xnnpack
from smidgen.runtime.engine_checks import (
    ModelFormat,
    check_tensor,
    check_threads,
    dequantize,
    failed,
    import_library,
    installed_version,
    is_installed,
    refuse,
    stored_pixels,
)
from smidgen.runtime.errors import EngineFailed
from smidgen.runtime.manifest import Manifest

if TYPE_CHECKING:
    from smidgen.runtime.engine import EngineOptions, Pixels, Scores, Session

_SCALE_RELATIVE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class TfliteEngine:
    """A wheel with TensorFlow Lite's Python ``Interpreter``; takes delegates, not providers.

    What it promises about scores: see ``compatibility.promises_bits``. ``delegate_options``: keys
    and values for delegates that are libraries; ``dataclasses.replace`` gives an engine with them.
    ``load_delegate`` stands in for the wheel's own, for tests of what no machine here has.
    """

    name: str
    module: str
    distribution: str
    model_format: ModelFormat = "tflite"
    delegate_options: tuple[tuple[str, str], ...] = ()
    load_delegate: Optional[LoadDelegate] = None

    def available(self) -> bool:
        """See Engine."""
        return is_installed(self.module)

    def load(self) -> None:
        """See Engine."""
        self._library()

    def version(self) -> str:
        """See Engine."""
        return installed_version(self.distribution, self.module)

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine."""
        check_threads(options.threads)
        refuse(self.name, "execution providers", options.providers)
        library, settings = self._library(), {}
        xnnpack = wants_xnnpack(options.delegates)
        if xnnpack is not None:
            kind = "BUILTIN" if xnnpack else "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
            settings["experimental_op_resolver_type"] = library.OpResolverType[kind]
        delegates = load_delegates(
            self.name, options.delegates, self.delegate_options, self._load_delegate
        )
        try:
            interpreter = library.Interpreter(
                model_content=data,
                num_threads=options.threads,
                experimental_delegates=delegates or None,
                **settings,
            )
            interpreter.allocate_tensors()
        except Exception as error:  # RuntimeError, ValueError, ... by wheel and version
            what = f"with {', '.join(options.delegates)} " if delegates else ""
            raise failed(self.name, f"{what}refused the model", error) from error
        return TfliteSession(self.name, interpreter, data, manifest)

    def _library(self) -> Any:
        """What has ``Interpreter``, ``OpResolverType`` and ``load_delegate``."""
        module = import_library(self.name, self.module)
        if self.module != "tensorflow":
            return module
        lite, trial = module.lite, module.lite.experimental
        return SimpleNamespace(
            Interpreter=lite.Interpreter,
            OpResolverType=trial.OpResolverType,
            load_delegate=trial.load_delegate,
        )

    def _load_delegate(self, library: str, options: dict[str, str]) -> Any:
        if self.load_delegate is not None:
            return self.load_delegate(library, options)
        library_of(library)
        return self._library().load_delegate(library, options)


class TfliteSession:
    """One ``Interpreter``, fed picture by picture (batch 1).

    Resizing the input to the batch does not pay. Measured on EfficientNet-Lite0 (LiteRT 2.3,
    x86-64, 1 thread, CPU time): int8 0.99 to 1.04 times as fast in batches of 2, 8 and 32, float32
    0.88 times; 53 MB more memory for 32 pictures. The scores are the same.
    """

    def __init__(self, engine: str, interpreter: Any, data: bytes, manifest: Manifest) -> None:
        """``data``: the model's bytes, which the interpreter reads for as long as it lives.

        Raises EngineFailed when the model's tensors are not those of the manifest.
        """
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineFailed(
                f"{engine}: {len(inputs)} inputs and {len(outputs)} outputs in the model, "
                "expected 1 and 1; export it again"
            )
        self._engine, self._input_dtype = engine, manifest.input.dtype
        self._interpreter, self._data = interpreter, data
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        check_tensor(engine, "input", inputs[0]["shape"], inputs[0]["dtype"], manifest.input)
        check_tensor(engine, "output", outputs[0]["shape"], outputs[0]["dtype"], manifest.output)
        codes = outputs[0]["quantization_parameters"]  # empty where it is not quantized
        self._scale = float([*codes["scales"], 1.0][0])
        self._zero_point = int([*codes["zero_points"], 0][0])
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
        self._data = b""
