"""Leaving a few layers of an integer graph in float32: DEQUANTIZE, the float operator, QUANTIZE."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from smidgen.export.errors import ConversionError
from smidgen.export.quantization.pairing import Pair, PairedGraph, is_constant

_DEQUANTIZE_VERSION = 2
"""The first that takes int8."""


def positions_of(graph: PairedGraph, layers: Sequence[str]) -> frozenset[int]:
    """The pairs that come from Keras layers of these names.

    Raises:
        ConversionError: no operator comes from a layer of this name.
    """
    found: set[int] = set()
    for layer in layers:
        here = {pair.position for pair in graph.pairs if pair.layer == layer}
        if not here:
            known = sorted({pair.layer for pair in graph.pairs if pair.is_weighted})
            near = get_close_matches(layer, known, 3) or known[:3]
            raise ConversionError(
                f"quantization.float_layers names {layer!r}, which is no layer of the int8 file: "
                f"expected one of its {len(known)} layers with a kernel, such as {', '.join(near)}"
            )
        found |= here
    return frozenset(found)


def with_float_layers(graph: PairedGraph, positions: Iterable[int]) -> Any:
    """A ``ModelT`` of the integer graph with the pairs at ``positions`` in float.

    The integer graph is not changed; both share their buffers. Where one float layer follows
    another, no code is between them.
    """
    wanted = frozenset(positions)
    builder = _Builder(graph)
    at = {id(pair.integer_operator): pair for pair in graph.pairs}
    operators: list[Any] = []
    for operator in graph.integer_model.subgraphs[0].operators:
        pair = at.get(id(operator))
        if pair is not None and pair.position in wanted:
            operators += builder.in_float(pair)
        else:
            operators.append(operator)
    return builder.finish(operators)


class _Builder:
    """A copy of the integer model that grows float tensors and operators."""

    def __init__(self, graph: PairedGraph) -> None:
        self._graph = graph
        self._model = copy.copy(graph.integer_model)
        self._main = copy.copy(self._model.subgraphs[0])
        self._main.tensors = list(self._main.tensors)
        self._model.subgraphs = [self._main]
        self._model.buffers = list(self._model.buffers)
        self._model.operatorCodes = list(self._model.operatorCodes)
        self._real_of: dict[int, int] = {}
        self._constants: dict[int, int] = {}

    def in_float(self, pair: Pair) -> list[Any]:
        """The operators that stand for an integer one."""
        made: list[Any] = []
        operator = copy.copy(pair.float_operator)
        inputs = []
        for integer, real in zip(pair.integer_operator.inputs, pair.float_operator.inputs):
            if integer < 0:
                inputs.append(-1)
            elif is_constant(self._graph.float_model, int(real)):
                inputs.append(self._constant(int(real)))
            else:
                if int(integer) not in self._real_of:
                    self._real_of[int(integer)] = self._activation(int(integer))
                    made.append(
                        self._conversion("DEQUANTIZE", int(integer), self._real_of[int(integer)])
                    )
                inputs.append(self._real_of[int(integer)])
        output = int(pair.integer_operator.outputs[0])
        self._real_of[output] = self._activation(output)
        operator.inputs = np.asarray(inputs, np.int32)
        operator.outputs = np.asarray([self._real_of[output]], np.int32)
        code = self._graph.float_model.operatorCodes[pair.float_operator.opcodeIndex]
        operator.opcodeIndex = self._code(_builtin(code), int(code.version))
        return [*made, operator, self._conversion("QUANTIZE", self._real_of[output], output)]

    def finish(self, operators: list[Any]) -> Any:
        """The model with these operators, but for QUANTIZEs whose output nobody takes."""
        taken = {int(i) for operator in operators for i in operator.inputs}
        taken |= {int(i) for i in self._main.outputs}
        self._main.operators = [o for o in operators if int(o.outputs[0]) in taken]
        return self._model

    def _activation(self, index: int) -> int:
        source = self._graph.float_tensor(self._graph.float_of[index])
        tensor = copy.copy(source)
        tensor.buffer, tensor.quantization = 0, None
        self._main.tensors.append(tensor)
        return len(self._main.tensors) - 1

    def _constant(self, index: int) -> int:
        if index not in self._constants:
            tensor = copy.copy(self._graph.float_tensor(index))
            self._model.buffers.append(self._graph.float_model.buffers[tensor.buffer])
            tensor.buffer = len(self._model.buffers) - 1
            self._main.tensors.append(tensor)
            self._constants[index] = len(self._main.tensors) - 1
        return self._constants[index]

    def _conversion(self, kind: str, before: int, after: int) -> Any:
        operator = schema.OperatorT()
        version = _DEQUANTIZE_VERSION if kind == "DEQUANTIZE" else 1
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, kind), version)
        operator.inputs = np.asarray([before], np.int32)
        operator.outputs = np.asarray([after], np.int32)
        return operator

    def _code(self, builtin: int, version: int) -> int:
        for index, code in enumerate(self._model.operatorCodes):
            if _builtin(code) == builtin and code.version == version:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = builtin
        code.deprecatedBuiltinCode = min(builtin, 127)
        code.version = version
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1


def _builtin(code: Any) -> int:
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
