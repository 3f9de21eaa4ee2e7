"""A TFLite model as an object that can be read, checked, changed and written again.

The flatbuffer schema's Python object API writes every buffer with an alignment of 1; kernels want
16 (``force_align: 16`` in the public schema), so buffers are packed here with that.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from smidgen.export.errors import ConversionError

BUFFER_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"
_OPERATORS: dict[int, str] = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
_TYPES: dict[int, str] = {
    value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose data starts at a multiple of 16 bytes in the file."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the name that the generated code calls)
        if self.data is None or len(self.data) == 0:
            schema.BufferStart(builder)
            return schema.BufferEnd(builder)
        payload = np.asarray(self.data, np.uint8).tobytes()
        builder.StartVector(1, len(payload), BUFFER_ALIGNMENT)
        builder.head -= len(payload)
        builder.Bytes[builder.head : builder.head + len(payload)] = payload
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def read_model(data: bytes) -> Any:
    """The ``ModelT`` of a ``.tflite`` file's bytes. Raises ConversionError for another file."""
    if data[4:8] != _IDENTIFIER:
        raise ConversionError("the converter's output is not a TFLite model: convert again")
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def write_model(model: Any) -> bytes:
    """The bytes of a ``ModelT``: equal models give equal bytes, buffers aligned to 16 bytes."""
    for index, buffer in enumerate(model.buffers):
        if not isinstance(buffer, _AlignedBuffer):
            model.buffers[index] = _AlignedBuffer(buffer.data)
    size = sum(0 if b.data is None else len(b.data) for b in model.buffers)
    builder = flatbuffers.Builder(size + size // 4 + 65536)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def operators(model: Any) -> list[str]:
    """The builtin operators of the main subgraph in order, ``CONV_2D`` and so on."""
    return [
        operator_name(model.operatorCodes[operator.opcodeIndex])
        for operator in model.subgraphs[0].operators
    ]


def operator_name(code: Any) -> str:
    """``CONV_2D`` for an ``OperatorCodeT``; ``CUSTOM`` for one that is not builtin."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _OPERATORS.get(number, f"operator {number}")


def type_name(number: int) -> str:
    """``float32``, ``int8`` ... for a number of the schema's ``TensorType``."""
    return _TYPES.get(number, f"type {number}").lower()


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether the file holds the values of a ``TensorT``."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def input_tensor(model: Any) -> Any:
    """The ``TensorT`` of the first input."""
    graph = model.subgraphs[0]
    return graph.tensors[graph.inputs[0]]


def output_tensor(model: Any) -> Any:
    """The ``TensorT`` of the first output."""
    graph = model.subgraphs[0]
    return graph.tensors[graph.outputs[0]]


def rename_ends(model: Any, input_name: str, output_name: str) -> None:
    """Give the input and output (and their signature entries) these names, in place."""
    input_tensor(model).name = input_name.encode()
    output_tensor(model).name = output_name.encode()
    for signature in model.signatureDefs or []:
        signature.inputs[0].name = input_name.encode()
        signature.outputs[0].name = output_name.encode()


def metadata_entries(model: Any) -> dict[str, bytes]:
    """The named metadata buffers of the model."""
    return {
        entry.name.decode(): bytes(model.buffers[entry.buffer].data)
        for entry in model.metadata or []
        if model.buffers[entry.buffer].data is not None
    }


def set_metadata_entry(model: Any, name: str, data: bytes) -> None:
    """Add the metadata buffer ``name``, or replace it, in place."""
    buffer = _AlignedBuffer(np.frombuffer(data, np.uint8))
    for entry in model.metadata or []:
        if entry.name == name.encode():
            model.buffers[entry.buffer] = buffer
            return
    entry = schema.MetadataT()
    entry.name = name.encode()
    entry.buffer = len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def drop_metadata_entry(model: Any, name: str) -> None:
    """Remove the metadata entry ``name`` and empty its buffer, in place; no error if absent."""
    for entry in list(model.metadata or []):
        if entry.name == name.encode():
            model.buffers[entry.buffer] = _AlignedBuffer(None)
            model.metadata.remove(entry)


def minimum_runtime(model: Any) -> str:
    """The lowest TFLite version that knows all operator versions, as the converter recorded it."""
    return metadata_entries(model).get("min_runtime_version", b"").rstrip(b"\0").decode("ascii")
