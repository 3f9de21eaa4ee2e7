"""The float and the integer TFLite file of one network, operator by operator.

The converter makes both from the same graph. Left out QUANTIZE and DEQUANTIZE, their operators
correspond one to one and in order, which is checked here before anything relies on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import PairingError
from smidgen.export.formats.tflite_file import operators, read_model, write_model

RESCALING = frozenset({"QUANTIZE", "DEQUANTIZE"})
WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Operators with a kernel (input 1) and maybe a bias (input 2); the kernel's output axis."""

_KERNEL_TOLERANCE = 0.3
"""Of a kernel's norm; rounding takes a few percent, another kernel's is 1.4 times as long."""

_UNCHANGED_SUFFIX = "_1"


@dataclass(frozen=True)
class Pair:
    """An operator of the float graph and the same one of the integer graph (both ``OperatorT``).

    ``position`` counts the pairs from 0, in the order in which they run.
    """

    position: int
    kind: str
    layer: str
    float_operator: Any
    integer_operator: Any

    @property
    def is_weighted(self) -> bool:
        """Whether it has a kernel."""
        return self.kind in WEIGHTED

    @property
    def kernel_axis(self) -> int:
        """The kernel axis of the output channels."""
        return WEIGHTED[self.kind]


@dataclass(frozen=True)
class PairedGraph:
    """Both models (``ModelT``), their operators in pairs, and which tensors stand for the same.

    ``float_of`` gives for each integer activation tensor the float tensor with its real values
    (several of one where the converter put a QUANTIZE between two scales).
    """

    float_model: Any
    integer_model: Any
    pairs: tuple[Pair, ...]
    float_of: dict[int, int]

    @cached_property
    def activations(self) -> tuple[int, ...]:
        """The float tensors with an integer twin that an operator computes, in order."""
        return tuple(dict.fromkeys(int(p.float_operator.outputs[0]) for p in self.pairs))

    def float_tensor(self, index: int) -> Any:
        """The ``TensorT`` of the float graph."""
        return self.float_model.subgraphs[0].tensors[index]

    def integer_tensor(self, index: int) -> Any:
        """The ``TensorT`` of the integer graph."""
        return self.integer_model.subgraphs[0].tensors[index]

    def kernel(self, pair: Pair) -> NDArray[np.float32]:
        """The float kernel of a weighted operator, in the file's layout."""
        return constant(self.float_model, int(pair.float_operator.inputs[1]))

    def bias(self, pair: Pair) -> NDArray[np.float32] | None:
        """The float bias, ``(output channels,)``; None where the operator has none."""
        index = bias_index(pair.float_operator)
        return None if index < 0 else constant(self.float_model, index)


def pair_up(float_model: Any, integer_model: Any) -> PairedGraph:
    """Pair the operators of both models (``ModelT``, one subgraph each).

    Raises:
        PairingError: operators, shapes or constants do not correspond.
    """
    sides = [_computing(model) for model in (float_model, integer_model)]
    kinds = [[kind for kind, _ in side] for side in sides]
    if len(float_model.subgraphs) != 1 or len(integer_model.subgraphs) != 1:
        raise PairingError("a TFLite file with several subgraphs: quantize with the converter")
    if kinds[0] != kinds[1]:
        where = next((i for i, (a, b) in enumerate(zip(*kinds)) if a != b), min(map(len, kinds)))
        raise PairingError(
            f"the float file has {len(kinds[0])} operators and the integer file {len(kinds[1])}, "
            f"different from number {where} on: quantize with the converter"
        )
    pairs = tuple(
        Pair(number, kind, _layer_of(float_model, kind, operator), operator, twin)
        for number, ((kind, operator), (_, twin)) in enumerate(zip(*sides))
    )
    graph = PairedGraph(float_model, integer_model, pairs, _correspondence(integer_model, pairs))
    for pair in pairs:
        _check(graph, pair)
    return graph


def copied(graph: PairedGraph) -> PairedGraph:
    """A paired graph of its own, which can be changed without changing ``graph``."""
    return pair_up(
        read_model(write_model(graph.float_model)), read_model(write_model(graph.integer_model))
    )


def constant(model: Any, index: int) -> NDArray[Any]:
    """The values of a constant tensor, a copy. Raises PairingError where it is not constant."""
    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0:
        raise PairingError(f"tensor {name_of(tensor)} is not constant: quantize with the converter")
    dtype = _DTYPES.get(int(tensor.type))
    if dtype is None:
        raise PairingError(f"tensor {name_of(tensor)} has type {tensor.type}: not handled")
    return np.frombuffer(bytes(data), dtype).reshape(tensor.shape).copy()


def is_constant(model: Any, index: int) -> bool:
    """Whether a tensor has its values in the file."""
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data is not None and len(data) > 0


def bias_index(operator: Any) -> int:
    """The tensor with the operator's bias; -1 where it has none."""
    return int(operator.inputs[2]) if len(operator.inputs) > 2 else -1


def name_of(tensor: Any) -> str:
    """A tensor's name."""
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


_FLOAT32 = 0
_DTYPES = {0: np.float32, 2: np.int32, 4: np.int64, 9: np.int8}


def _computing(model: Any) -> list[tuple[str, Any]]:
    named = zip(operators(model), model.subgraphs[0].operators)
    return [(kind, operator) for kind, operator in named if kind not in RESCALING]


def _correspondence(integer_model: Any, pairs: tuple[Pair, ...]) -> dict[int, int]:
    float_of: dict[int, int] = {}
    for pair in pairs:
        for ours, theirs in (
            (pair.integer_operator.inputs, pair.float_operator.inputs),
            (pair.integer_operator.outputs, pair.float_operator.outputs),
        ):
            if len(ours) != len(theirs):
                raise PairingError(
                    f"{pair.kind} {pair.layer} has {len(theirs)} tensors in the float file and "
                    f"{len(ours)} in the integer file: quantize with the converter"
                )
            for integer, real in zip(ours, theirs):
                if integer >= 0 and float_of.setdefault(int(integer), int(real)) != real:
                    raise PairingError(
                        f"a tensor of {pair.kind} {pair.layer} stands for two: quantize with "
                        "the converter"
                    )
    graph = integer_model.subgraphs[0]
    rescaling = [o for k, o in zip(operators(integer_model), graph.operators) if k in RESCALING]
    for operator in rescaling:
        before, after = int(operator.inputs[0]), int(operator.outputs[0])
        if before in float_of or after in float_of:
            known = float_of.get(before, float_of.get(after, -1))
            if float_of.setdefault(before, known) != float_of.setdefault(after, known):
                raise PairingError("a QUANTIZE joins two tensors: quantize with the converter")
    return float_of


def _check(graph: PairedGraph, pair: Pair) -> None:
    """Shapes equal, and kernels near each other, or raises PairingError."""
    for integer, real in zip(pair.integer_operator.outputs, pair.float_operator.outputs):
        ours = tuple(graph.integer_tensor(int(integer)).shape)
        theirs = tuple(graph.float_tensor(int(real)).shape)
        if ours != theirs:
            raise PairingError(
                f"{pair.kind} {pair.layer} gives {theirs} in the float file and {ours} in the "
                "integer file: quantize with the converter"
            )
    if not pair.is_weighted:
        return
    index = int(pair.integer_operator.inputs[1])
    if graph.integer_tensor(index).type == _FLOAT32:  # a layer that was left in float
        return
    kernel, codes = graph.kernel(pair), constant(graph.integer_model, index)
    scale = np.asarray(graph.integer_tensor(index).quantization.scale, np.float32)
    if kernel.shape != codes.shape or len(scale) not in (1, codes.shape[pair.kernel_axis]):
        raise PairingError(
            f"the kernels of {pair.layer} have shapes {kernel.shape} and {codes.shape}: quantize "
            "with the converter"
        )
    lost = kernel - codes * along(scale, pair.kernel_axis, kernel.ndim)
    share = float(np.linalg.norm(lost)) / max(float(np.linalg.norm(kernel)), 1e-30)
    if not share <= _KERNEL_TOLERANCE:
        raise PairingError(
            f"the kernels of {pair.layer} differ by {100 * share:.0f} %: quantize with the "
            "converter, or compare with the float twin that was made with the int8 file"
        )


def along(values: NDArray[Any], axis: int, dimensions: int) -> NDArray[Any]:
    """``values`` shaped to be broadcast along ``axis``; a single one as it is."""
    shape = [1] * dimensions
    if len(values) > 1:
        shape[axis] = len(values)
    return values.reshape(shape)


def _layer_of(model: Any, kind: str, operator: Any) -> str:
    """The Keras layer that an operator comes from: its kernel's, or its output's."""
    tensors = model.subgraphs[0].tensors
    is_named = kind in WEIGHTED and operator.inputs[1] >= 0
    tensor = tensors[operator.inputs[1] if is_named else operator.outputs[0]]
    path = name_of(tensor).split(";")[0].split("/")
    name = path[-2] if len(path) > 1 else path[0]
    return name.removesuffix(_UNCHANGED_SUFFIX)
