"""A TFLite file as typed tensors and operators, for code that translates it.

Names of operators, types and options are those of the public schema (``schema.fbs``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from smidgen.export.errors import ConversionError
from smidgen.export.formats import tflite_file

_TYPES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_NUMPY = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}
_ACTIVATIONS = {
    value: name
    for name, value in vars(schema.ActivationFunctionType).items()
    if isinstance(value, int)
}


@dataclass(frozen=True)
class Tensor:
    """One tensor. ``real = (stored - zero_points) * scales`` where there are scales.

    ``scales (n,) float32`` and ``zero_points (n,) int64`` have one entry, or one for each slice
    along ``axis``. ``data`` is set for constants alone.
    """

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    scales: NDArray[np.float32] | None
    zero_points: NDArray[np.int64] | None
    axis: int
    data: NDArray[Any] | None

    @property
    def is_integer(self) -> bool:
        """Whether it is stored as 8-bit integers with a scale."""
        return self.kind in ("INT8", "UINT8") and self.scales is not None

    @property
    def code(self) -> tuple[np.float32, int]:
        """Scale and zero point of the whole tensor. Raises ConversionError where it has many."""
        if self.scales is None or self.zero_points is None or len(self.scales) != 1:
            count = 0 if self.scales is None else len(self.scales)
            raise ConversionError(
                f"the tensor {self.name} has {count} scales, expected one: quantize it per tensor"
            )
        return self.scales[0], int(self.zero_points[0])


@dataclass(frozen=True)
class Operator:
    """One operator; ``number`` is its place in the file; an absent input is -1."""

    number: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    @property
    def name(self) -> str:
        """Such as ``conv_2d_12``."""
        return f"{self.kind.lower()}_{self.number}"

    def option(self, name: str, default: Any) -> Any:
        """The option ``name`` of the schema, ``default`` where the file has none."""
        return default if self.options is None else getattr(self.options, name, default)

    @property
    def activation(self) -> str:
        """The fused activation: ``NONE``, ``RELU``, ``RELU6`` ..."""
        return str(_ACTIVATIONS[self.option("fusedActivationFunction", 0)])


@dataclass(frozen=True)
class TfliteGraph:
    """The main subgraph of a ``.tflite`` file."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @classmethod
    def read(cls, data: bytes) -> TfliteGraph:
        """From the file's bytes. Raises ConversionError for another file or an unknown type."""
        model = tflite_file.read_model(data)
        graph = model.subgraphs[0]
        kinds = tflite_file.operators(model)
        return cls(
            tuple(_tensor(model, *item) for item in enumerate(graph.tensors)),
            tuple(_operator(*item) for item in enumerate(zip(kinds, graph.operators, strict=True))),
            tuple(int(index) for index in graph.inputs),
            tuple(int(index) for index in graph.outputs),
        )

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """Tensor index to the operator that makes it."""
        return {output: step for step in self.operators for output in step.outputs}

    def consumers(self, index: int) -> list[Operator]:
        """The operators that read a tensor."""
        return [step for step in self.operators if index in step.inputs]


def _operator(number: int, pair: tuple[str, Any]) -> Operator:
    kind, raw = pair
    return Operator(
        number,
        kind,
        tuple(int(index) for index in raw.inputs),
        tuple(int(index) for index in raw.outputs),
        raw.builtinOptions,
    )


def _tensor(model: Any, index: int, raw: Any) -> Tensor:
    name, kind = (raw.name or b"").decode("utf-8", "replace"), _TYPES[raw.type]
    shape = () if raw.shape is None else tuple(int(size) for size in raw.shape)
    code, scales, zero_points = raw.quantization, None, None
    if code is not None and code.scale is not None and len(code.scale):
        scales = np.asarray(code.scale, np.float32)
        points = code.zeroPoint if code.zeroPoint is not None else []
        zero_points = np.zeros(len(scales), np.int64)
        zero_points[:] = points if len(points) else 0
    buffer = model.buffers[raw.buffer].data
    data = None
    if buffer is not None and len(buffer):
        if kind not in _NUMPY:
            raise ConversionError(
                f"the constant {name} has type {kind}, known are {', '.join(_NUMPY)}: "
                "convert with another scheme"
            )
        data = np.frombuffer(np.asarray(buffer, np.uint8).tobytes(), _NUMPY[kind]).reshape(shape)
    axis = 0 if code is None else int(code.quantizedDimension)
    return Tensor(index, name, kind, shape, scales, zero_points, axis, data)
