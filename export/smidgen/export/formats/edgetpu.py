"""Whether Google's Edge TPU compiler can map a TFLite file whole: its published rules.

Source: "TensorFlow models on the Edge TPU" (coral.ai/docs/edgetpu/models-intro: model requirements
and the table of supported operations), and Axis' copy of that table for ARTPEC-7. Versions: edgetpu
compiler 16.0, the last one, brings the kernels' list of TensorFlow 2.5 (its issues show it refuse
CONV_2D version 6 and EXP version 2, which are of 2.9 and 2.12). The compiler is in no package
registry, so these rules were not run against it: a file that passes is ready to try, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from smidgen.export.formats import tflite_file
from smidgen.export.formats.problem import Problem

COMPILER_TENSORFLOW = "2.5.0"
"""The release whose operator versions the compiler reads."""

_OPERATORS = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
    L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE
    REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH
    TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM
"""
_MAPPED = frozenset(_OPERATORS.split())
_LARGEST_SOFTMAX = 16_000
_BYTES = (schema.TensorType.INT8, schema.TensorType.UINT8)
_CONSTANTS = (*_BYTES, schema.TensorType.INT32, schema.TensorType.INT64)
_INT8 = "export int8"
_ONE_IMAGE = "export with a batch of 1"


def edgetpu_problems(model: Any) -> Iterator[Problem]:
    """What keeps ``model`` (a ``ModelT``) from running on an Edge TPU as a whole, in order."""
    if len(model.subgraphs) != 1:
        yield Problem("", f"{len(model.subgraphs)} subgraphs", "one subgraph", "export without IF")
    graph = model.subgraphs[0]
    names = tflite_file.operators(model)
    for name in dict.fromkeys(names):
        if name not in _MAPPED:
            yield Problem(name, "used", "no Edge TPU form", "choose a network without it")
    shapes: list[Problem] = []  # every operator repeats the first one's
    for name, operator in zip(names, graph.operators):
        yield from _type_problems(model, name, operator)
        shapes = shapes or list(_shape_problems(model, name, operator))
        limit = _LIMITS.get(name)
        said = limit(model, operator) if limit else ""
        if said:
            found, _, available = said.partition("; ")
            yield Problem(name, found, available, "change the network")
    yield from shapes[:1]


def _type_problems(model: Any, name: str, operator: Any) -> Iterator[Problem]:
    for tensor in _tensors(model, operator):
        allowed = _CONSTANTS if tflite_file.is_constant(model, tensor) else _BYTES
        if tensor.type not in allowed:
            found = f"{tflite_file.type_name(tensor.type)} values"
            yield Problem(name, found, "int8 and uint8", _INT8)


def _shape_problems(model: Any, name: str, operator: Any) -> Iterator[Problem]:
    for tensor in _tensors(model, operator):
        if tensor.shapeSignature is not None and -1 in list(tensor.shapeSignature):
            shape = tuple(int(size) for size in tensor.shapeSignature)
            yield Problem(name, f"shape {shape}", "fixed shapes", _ONE_IMAGE)
        shape = _shape(tensor)
        if not tflite_file.is_constant(model, tensor) and max((1, *shape[:-3])) > 1:
            yield Problem(name, f"shape {shape}", "three sizes above 1", _ONE_IMAGE)


def _tensors(model: Any, operator: Any) -> list[Any]:
    tensors = model.subgraphs[0].tensors
    return [tensors[index] for index in [*operator.inputs, *operator.outputs] if index >= 0]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()


def _input(model: Any, operator: Any, position: int = 0) -> Any:
    return model.subgraphs[0].tensors[operator.inputs[position]]


def _output(model: Any, operator: Any) -> Any:
    return model.subgraphs[0].tensors[operator.outputs[0]]


def _no_fused_activation(_: Any, operator: Any) -> str:
    options = operator.builtinOptions
    fused = options.fusedActivationFunction if options else 0
    return "a fused activation; none" if fused else ""


def _equal_dilation(_: Any, operator: Any) -> str:
    options = operator.builtinOptions
    if options is None or options.dilationWFactor == options.dilationHFactor:
        return ""
    return f"dilation {options.dilationHFactor}x{options.dilationWFactor}; equal ones in x and y"


def _one_row(model: Any, operator: Any) -> str:
    if operator.builtinOptions is not None and operator.builtinOptions.weightsFormat:
        return "shuffled weights; the default format"
    shape = _shape(_output(model, operator))
    return f"output {shape}; one row" if max(shape[:-1], default=1) > 1 else ""


def _small_softmax(model: Any, operator: Any) -> str:
    shape = _shape(_input(model, operator))
    if max(shape[:-1], default=1) > 1:
        return f"input {shape}; one row"
    if shape and shape[-1] > _LARGEST_SOFTMAX:
        return f"{shape[-1]} classes; at most {_LARGEST_SOFTMAX}"
    return ""


def _no_batch_reduction(model: Any, operator: Any) -> str:
    data, axes = _input(model, operator), _input(model, operator, 1)
    stored = model.buffers[axes.buffer].data
    if stored is None:
        return "axes that are computed; constant ones"
    rank = len(_shape(data))
    chosen = [int(axis) % rank for axis in np.frombuffer(bytes(stored), np.int32)]
    if 0 in chosen and rank > 1 and _shape(data)[0] > 1:
        return "a mean over the batch; means over x, y or channels"
    if rank - 1 in chosen and _shape(data)[-1] % 4:
        return f"a mean over {_shape(data)[-1]} channels; a multiple of 4"
    return ""


def _unit_strides(model: Any, operator: Any) -> str:
    stored = model.buffers[_input(model, operator, 3).buffer].data
    if stored is not None and set(np.frombuffer(bytes(stored), np.int32).tolist()) <= {1}:
        return ""
    return "other strides; strides of 1"


_LIMITS: dict[str, Callable[[Any, Any], str]] = {
    "AVERAGE_POOL_2D": _no_fused_activation,
    "CONCATENATION": _no_fused_activation,
    "CONV_2D": _equal_dilation,
    "DEPTHWISE_CONV_2D": _equal_dilation,
    "FULLY_CONNECTED": _one_row,
    "MAX_POOL_2D": _no_fused_activation,
    "MEAN": _no_batch_reduction,
    "SOFTMAX": _small_softmax,
    "STRIDED_SLICE": _unit_strides,
    "SUM": _no_batch_reduction,
}
