"""TFLite tensors as ONNX values: integers as they are, real numbers by DequantizeLinear.

Each tensor of the TFLite file has up to two names in the ONNX graph: that of its stored integers
and that of its real numbers. Rank 4 is ``(N, H, W, C)`` there and ``(N, C, H, W)`` here; the batch
is 1 there and free here. int8 activations may be stored as uint8 with 128 added to value and zero
point: the same real numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from smidgen.export.errors import ConversionError
from smidgen.export.formats.tflite_graph import Operator, Tensor, TfliteGraph

Activations = Literal["u8", "s8"]

_LIMITS = {"NONE": (None, None), "RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}


class OnnxValues:
    """The ONNX nodes and initializers so far, and the names of the tensors among them."""

    def __init__(
        self, graph: TfliteGraph, activations: Activations, kept_real: frozenset[int] = frozenset()
    ) -> None:
        """``kept_real``: tensors that are not rounded to integers again."""
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self._made: set[str] = set()
        self.initializers: dict[str, TensorProto] = {}
        self._shift = 128 if activations == "u8" else 0
        self._kept_real = kept_real
        self._stored: dict[int, str] = {}
        self._real: dict[int, str] = {}
        self._dequantized: dict[int, int] = {}
        self._padded: dict[int, tuple[int, tuple[int, int, int, int]]] = {}
        self._constants: dict[int, int] = {}

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node of one output, which also names the node; returns the output."""
        self._made.add(output)
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer, once for each name; returns the name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def tensor(self, index: int) -> Tensor:
        """The TFLite tensor."""
        return self.graph.tensors[index]

    def stored_code(self, index: int) -> tuple[np.dtype[Any], np.float32, int]:
        """Type, scale and zero point under which a tensor is stored in the ONNX graph."""
        tensor = self.tensor(index)
        scale, zero_point = tensor.code
        if tensor.kind == "UINT8" or self._shift:
            shift = 0 if tensor.kind == "UINT8" else self._shift
            return np.dtype(np.uint8), scale, zero_point + shift
        return np.dtype(np.int8), scale, zero_point

    def set_stored(self, index: int, name: str) -> None:
        """The integers of a tensor are the value ``name``."""
        self._stored[index] = name

    def stored(self, index: int) -> str:
        """The name of the integers. Raises ConversionError where the tensor has none yet."""
        if index not in self._stored:
            raise ConversionError(
                f"the tensor {self.tensor(index).name} is used before it is made: report this"
            )
        return self._stored[index]

    def rename(self, index: int, source: int) -> None:
        """The tensor ``index`` is the same as ``source``, integers and real numbers."""
        for names in (self._stored, self._real):
            if source in names:
                names[index] = names[source]
        if source in self._dequantized:
            self._dequantized[index] = self._dequantized[source]
        if source in self._padded:
            self._padded[index] = self._padded[source]

    def is_constant(self, index: int) -> bool:
        """Whether it is a constant, or one made float by a DEQUANTIZE."""
        return self.tensor(index).data is not None or index in self._constants

    def constant_tensor(self, index: int) -> Tensor:
        """The constant itself. Raises ConversionError where the tensor is computed."""
        tensor = self.tensor(self._constants.get(index, index))
        if tensor.data is None:
            raise ConversionError(
                f"the tensor {tensor.name} is computed, expected a constant: report this"
            )
        return tensor

    def pad(self, index: int, source: int, pads: tuple[int, int, int, int]) -> None:
        """The tensor is ``source`` with zeros around: top, left, bottom, right."""
        self._padded[index] = source, pads

    def unpadded(self, index: int) -> tuple[int, tuple[int, int, int, int]]:
        """What a tensor was before PAD, and the zeros around it."""
        return self._padded.get(index, (index, (0, 0, 0, 0)))

    def real(self, index: int) -> str:
        """The name of the real numbers of an activation."""
        if index in self._real:
            return self._real[index]
        if index in self._dequantized:
            return self.real(self._dequantized[index])
        if index in self._padded:
            source, pads = self._padded[index]
            sides = np.asarray([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
            inputs = [self.real(source), self.constant(f"t{index}_pads", sides)]
            self.put(index, self.node("Pad", inputs, f"t{index}_padded"))
            return self.real(index)
        inputs = [self.stored(index), *self._code_constants(index)]
        self._real[index] = self.node("DequantizeLinear", inputs, f"t{index}_real")
        return self._real[index]

    def real_for_float_kernel(self, index: int) -> str:
        """The same real numbers, with the scale of the integers written once for each channel.

        ONNX Runtime's rule WeightBiasQuantization (in its basic optimizations) rounds the float32
        weights of a Conv or Gemm to int8, all with one scale, if its input is dequantized with one
        scale and its output is quantized: what was kept float would be coarser than the rest. The
        rule leaves inputs with several scales alone. One channel alone has no such form.
        """
        source = self._dequantized.get(index, index)
        channels = self.tensor(source).shape[-1]
        if source not in self._stored or channels == 1:
            return self.real(index)
        name = f"t{source}_real_by_channel"
        if name in self._made:
            return name
        kind, scale, zero_point = self.stored_code(source)
        inputs = [
            self.stored(source),
            self.constant(f"t{source}_scales", np.full(channels, scale, np.float32)),
            self.constant(f"t{source}_zero_points", np.full(channels, zero_point, kind)),
        ]
        return self.node("DequantizeLinear", inputs, name, axis=1)

    def operand(self, index: int, rank: int) -> str:
        """Real numbers of an activation, or of a constant that is laid out for ``rank``."""
        if not self.is_constant(index):
            return self.real(index)
        tensor = self.constant_tensor(index)
        assert tensor.data is not None
        data, name = tensor.data, f"t{tensor.index}"
        if rank == 4:
            data = data.reshape((1,) * (4 - data.ndim) + data.shape).transpose(0, 3, 1, 2)
        if not tensor.is_integer:
            return self._float_constant(name, data)
        kind, _, zero_point = self.stored_code(tensor.index)
        shift = zero_point - tensor.code[1]
        if name not in self.initializers:
            stored = self.constant(name, (data.astype(np.int16) + shift).astype(kind))
            inputs = [stored, *self._code_constants(tensor.index)]
            self.node("DequantizeLinear", inputs, f"{name}_real")
        return f"{name}_real"

    def weights(self, index: int, order: tuple[int, ...]) -> str:
        """Real numbers of constant weights or a bias, axes in ``order``, stored as they are."""
        tensor = self.constant_tensor(index)
        assert tensor.data is not None
        data, name = tensor.data.transpose(order), f"t{tensor.index}"
        if tensor.kind.startswith("FLOAT"):
            return self._float_constant(name, data)
        if tensor.scales is None or tensor.zero_points is None:
            raise ConversionError(f"the weights {tensor.name} have no scale: quantize them again")
        if f"{name}_real" in self._made:
            return f"{name}_real"
        scales, points = tensor.scales, tensor.zero_points.astype(data.dtype)
        is_one = len(scales) == 1
        inputs = [
            self.constant(name, data),
            self.constant(f"{name}_scale", scales[0] if is_one else scales),
            self.constant(f"{name}_zero_point", points[0] if is_one else points),
        ]
        axis = {} if is_one else {"axis": order.index(tensor.axis)}
        return self.node("DequantizeLinear", inputs, f"{name}_real", **axis)

    def put(self, index: int, real: str, activation: str = "NONE") -> None:
        """The tensor is the value ``real``, after ``activation``: in integers where it has them.

        TFLite limits the integers after rounding; where all of their range is inside the limits
        nothing is left to do. Else an integer Clip follows.
        """
        if not self.tensor(index).is_integer or index in self._kept_real:
            self._real[index] = self._float_limits(index, real, activation)
            return
        inputs = [real, *self._code_constants(index)]
        name = self.node("QuantizeLinear", inputs, f"t{index}")
        kind, scale, zero_point = self.stored_code(index)
        whole = np.iinfo(kind.type)
        low, high = (
            None if limit is None else zero_point + round(float(np.float32(limit) / scale))
            for limit in self._limits(activation)
        )
        low = whole.min if low is None else max(whole.min, low)
        high = whole.max if high is None else min(whole.max, high)
        if (low, high) != (whole.min, whole.max):
            ends = [
                self.constant(f"{kind.name}_{value}", np.asarray(value, kind))
                for value in (low, high)
            ]
            name = self.node("Clip", [name, *ends], f"t{index}_limited")
        self._stored[index] = name

    def convert(self, step: Operator) -> None:
        """QUANTIZE or DEQUANTIZE: nothing, where the integers are the same."""
        source, target = step.inputs[0], step.outputs[0]
        if self.is_constant(source):
            self._constants[target] = self._constants.get(source, source)
        elif self._is_same_code(source, target):
            self.rename(target, source)
        elif self.tensor(target).is_integer:
            self.put(target, self.real(source))
        else:
            self._dequantized[target] = self._dequantized.get(source, source)

    def _is_same_code(self, source: int, target: int) -> bool:
        is_integer = self.tensor(target).is_integer and source in self._stored
        return is_integer and self.stored_code(source) == self.stored_code(target)

    def _limits(self, activation: str) -> tuple[int | None, int | None]:
        if activation not in _LIMITS:
            raise ConversionError(
                f"the fused activation {activation} has no ONNX form here, known are "
                f"{', '.join(_LIMITS)}: export tflite, or float32"
            )
        return _LIMITS[activation]

    def _float_limits(self, index: int, real: str, activation: str) -> str:
        low, high = self._limits(activation)
        if low is None and high is None:
            return real
        ends = [
            "" if limit is None else self.constant(f"limit_{limit}", np.asarray(limit, np.float32))
            for limit in (low, high)
        ]
        return self.node("Clip", [real, *(ends if ends[1] else ends[:1])], f"t{index}_limited")

    def _float_constant(self, name: str, data: NDArray[Any]) -> str:
        if data.dtype == np.float16:
            stored = self.constant(name, data)
            if f"{name}_real" not in self._made:
                self.node("Cast", [stored], f"{name}_real", to=TensorProto.FLOAT)
            return f"{name}_real"
        return self.constant(name, data)

    def _code_constants(self, index: int) -> list[str]:
        kind, scale, zero_point = self.stored_code(index)
        return [
            self.constant(f"t{index}_scale", np.asarray(scale, np.float32)),
            self.constant(f"t{index}_zero_point", np.asarray(zero_point, kind)),
        ]
