"""ONNX models, through ONNX Runtime."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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

_CPU = "CPUExecutionProvider"
_ONNX_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(float)": "float32",
}


@dataclass(frozen=True)
class OnnxRuntimeEngine:
    """ONNX Runtime; takes execution providers, not delegates.

    What it promises about scores: see ``compatibility.promises_bits``.
    """

    name: str = "onnxruntime"
    model_format: ModelFormat = "onnx"

    def available(self) -> bool:
        """See Engine."""
        return is_installed("onnxruntime")

    def load(self) -> None:
        """See Engine."""
        import_library(self.name, "onnxruntime")

    def version(self) -> str:
        """See Engine."""
        return installed_version("onnxruntime", "onnxruntime")

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine."""
        check_threads(options.threads)
        refuse(self.name, "delegates", options.delegates)
        onnxruntime = import_library(self.name, "onnxruntime")
        providers = _providers(self.name, options.providers, onnxruntime.get_available_providers())
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        try:
            inner = onnxruntime.InferenceSession(data, sess_options=settings, providers=providers)
        except Exception as error:  # its own classes, which derive from Exception alone
            raise failed(self.name, "refused the model", error) from error
        _check_started(self.name, providers, inner.get_providers())
        return OnnxSession(self.name, inner, manifest)


class OnnxSession:
    """One ``InferenceSession``: whole batches where the model's batch size is free."""

    def __init__(self, engine: str, inner: Any, manifest: Manifest) -> None:
        """Raises EngineFailed when the model's tensors are not those of the manifest."""
        inputs, outputs = inner.get_inputs(), inner.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineFailed(
                f"{engine}: {len(inputs)} inputs and {len(outputs)} outputs in the model, "
                "expected 1 and 1; export it again"
            )
        self._engine, self._inner = engine, inner
        self._input, self._output = inputs[0].name, outputs[0].name
        self._one_by_one = isinstance((inputs[0].shape or [None])[0], int)
        self._spec, self._input_dtype = manifest.output, manifest.input.dtype
        for what, tensor, spec in (
            ("input", inputs[0], manifest.input),
            ("output", outputs[0], manifest.output),
        ):
            shape = [size if isinstance(size, int) else -1 for size in tensor.shape]
            check_tensor(engine, what, shape, _ONNX_TYPES.get(tensor.type, tensor.type), spec)

    def run(self, pixels: Pixels) -> Scores:
        """See Session."""
        inner = self._inner
        if inner is None:
            raise EngineFailed(f"{self._engine}: the session is closed; open the Bundle again")
        stored = stored_pixels(pixels, self._input_dtype)
        step = 1 if self._one_by_one else max(1, len(pixels))
        try:
            parts = [
                inner.run([self._output], {self._input: stored[start : start + step]})[0]
                for start in range(0, len(pixels), step)
            ]
        except Exception as error:  # its own classes, which derive from Exception alone
            raise failed(self._engine, "failed while running", error) from error
        return dequantize(np.concatenate(parts), self._spec.scale, self._spec.zero_point)

    def close(self) -> None:
        """See Session."""
        self._inner = None


def _providers(engine: str, wanted: Sequence[str], available: Sequence[str]) -> list[str]:
    """``wanted``, then the CPU for what they leave. Raises EngineFailed for one that is not there.

    CPU alone is the default: on a machine with a GPU the wheel would take that, and other scores
    with it.
    """
    for name in wanted:
        if name not in available:
            short = {one.replace("ExecutionProvider", "").lower(): one for one in available}
            key = name.replace("ExecutionProvider", "").lower()
            near = difflib.get_close_matches(key, short, n=1, cutoff=0.6)
            hint = f"did you mean {short[near[0]]!r}? " if near else ""
            raise EngineFailed(
                f"{engine} here has no execution provider {name!r}: {hint}there are: "
                f"{', '.join(available)}; others come with other builds of onnxruntime"
            )
    return [*dict.fromkeys([*wanted, _CPU])]


def _check_started(engine: str, wanted: Sequence[str], started: Sequence[str]) -> None:
    """Raises EngineFailed: it goes on without the others, and says so in its log alone."""
    absent = [name for name in wanted if name not in started]
    if absent:
        raise EngineFailed(
            f"{engine}: {', '.join(absent)} did not start; install what it needs (driver, "
            "libraries), or leave it out"
        )
