"""What a network is made of, as a TFLite runtime would see it: operators, tensors, memory.

Nothing is converted: each Keras layer is looked up in a table of the operators that the converter
makes of it, with activations that runtimes fuse into the operator before them taken away.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

_FUSED = frozenset({"RELU", "RELU6"})
_FUSING = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL"})

_LAYERS: dict[str, tuple[str, ...]] = {
    "Add": ("ADD",),
    "AveragePooling2D": ("AVERAGE_POOL_2D",),
    "BatchNormalization": ("MUL", "ADD"),
    "Concatenate": ("CONCATENATION",),
    "Conv2D": ("CONV_2D",),
    "Conv2DTranspose": ("TRANSPOSE_CONV",),
    "Dense": ("FULLY_CONNECTED",),
    "DepthwiseConv2D": ("DEPTHWISE_CONV_2D",),
    "Flatten": ("RESHAPE",),
    "GlobalAveragePooling2D": ("MEAN",),
    "GlobalMaxPooling2D": ("REDUCE_MAX",),
    "LayerNormalization": ("MEAN", "SQUARED_DIFFERENCE", "MEAN", "ADD", "RSQRT", "MUL", "ADD"),
    "LeakyReLU": ("LEAKY_RELU",),
    "MaxPooling2D": ("MAX_POOL_2D",),
    "Multiply": ("MUL",),
    "PReLU": ("PRELU",),
    "Rescaling": ("MUL", "ADD"),
    "Reshape": ("RESHAPE",),
    "SeparableConv2D": ("DEPTHWISE_CONV_2D", "CONV_2D"),
    "Softmax": ("SOFTMAX",),
    "Subtract": ("SUB",),
    "UpSampling2D": ("RESIZE_NEAREST_NEIGHBOR",),
    "ZeroPadding2D": ("PAD",),
}
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "elu": ("ELU",),
    "gelu": ("GELU",),
    "hard_sigmoid": ("MUL", "ADD", "RELU_0_TO_1"),
    "hard_silu": ("HARD_SWISH",),
    "leaky_relu": ("LEAKY_RELU",),
    "linear": (),
    "relu": ("RELU",),
    "relu6": ("RELU6",),
    "sigmoid": ("LOGISTIC",),
    "silu": ("LOGISTIC", "MUL"),
    "softmax": ("SOFTMAX",),
    "tanh": ("TANH",),
}
_IDLE = frozenset(
    {"InputLayer", "Dropout", "SpatialDropout2D", "Identity", "ActivityRegularization"}
)
_SQUEEZE = frozenset({"GlobalAveragePooling2D", "Mean"})
_GATE_STEPS = 8
"""Operations between the pooling of a squeeze-and-excite block and its multiplication, at most."""


@dataclass(frozen=True)
class Operator:
    """One operator of the file; ``inputs`` and ``output`` are numbers of activation tensors."""

    kind: str
    layer: str
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Anatomy:
    """A network's operators in order of execution.

    tensor_sizes: numbers in each activation tensor, for one image.
    squeeze_excite, swish, hard_swish: names of the layers that end each such block.
    lone_batch_norms: names of the BatchNorms that could not be folded into a convolution.
    unknown: names of layers for which no operator is known, with their types.
    """

    operators: tuple[Operator, ...]
    tensor_sizes: tuple[int, ...]
    squeeze_excite: tuple[str, ...] = ()
    swish: tuple[str, ...] = ()
    hard_swish: tuple[str, ...] = ()
    lone_batch_norms: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Operator name to how often it occurs, most frequent first, then by name."""
        counts = Counter(operator.kind for operator in self.operators)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def peak_numbers(self) -> int:
        """Most numbers in activation tensors that must be kept at the same time.

        One byte each in an int8 file, four in float32. A tensor is kept from the operator that
        makes it to the last one that takes it. No planner needs less without working in place.
        """
        last_use = {operator.output: at for at, operator in enumerate(self.operators)}
        born = dict.fromkeys(range(len(self.tensor_sizes)), 0)
        for at, operator in enumerate(self.operators):
            born[operator.output] = at
            last_use.update(dict.fromkeys(operator.inputs, at))
        return max(
            sum(
                size
                for number, size in enumerate(self.tensor_sizes)
                if born[number] <= at <= last_use.get(number, -1)
            )
            for at in range(len(self.operators))
        )


def anatomy_of(network: Any) -> Anatomy:
    """The anatomy of the file that export would make of ``network``.

    Args:
        network: a functional Keras model of a fixed image size, ``(N, H, W, 3) float32`` to logits,
            BatchNorm folded and idle layers gone (``fold_batch_norms``).
    """
    builder = _Builder()
    builder.enter(network)
    for operation in network.operations:
        for node in operation._inbound_nodes:
            if all(id(tensor) in builder.tensors for tensor in node.input_tensors):
                builder.visit(operation, node)
    return builder.finish(network)


@dataclass
class _Builder:
    operators: list[Operator] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    tensors: dict[int, int] = field(default_factory=dict)
    found: dict[str, list[str]] = field(default_factory=dict)
    takers: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def enter(self, network: Any) -> None:
        """The pixels come in as ``uint8`` and are shifted to ``int8``."""
        for operation in network.operations:
            for node in operation._inbound_nodes:
                for tensor in node.input_tensors:
                    self.takers[id(tensor)].append(operation)
        image = network.inputs[0]
        self.sizes.append(_size(image))
        self.tensors[id(image)] = self._emit("QUANTIZE", "image", (0,), _size(image))

    def visit(self, operation: Any, node: Any) -> None:
        kind = type(operation).__name__
        inputs = tuple(self.tensors[id(tensor)] for tensor in node.input_tensors)
        output = node.output_tensors[0]
        made = self._kinds(operation, kind, node)
        number = before_gate = inputs[0] if inputs else 0
        for step, name in enumerate(made):
            if name in _FUSED and self._is_fusable(number, node, step):
                continue
            is_gate = name == "MUL" and made[step - 1] == "LOGISTIC" and step > 0
            taken = inputs if step == 0 else (before_gate, number) if is_gate else (number,)
            before_gate = number
            number = self._emit(name, operation.name, taken, _step_size(operation, node, step))
        self.tensors[id(output)] = number
        is_gating = kind == "Multiply" and len(node.input_tensors) == 2
        if is_gating and any(map(_is_squeezed, node.input_tensors)):
            self._note("squeeze_excite", operation.name)

    def finish(self, network: Any) -> Anatomy:
        logits = network.outputs[0]
        scores = self._emit("SOFTMAX", "softmax", (self.tensors[id(logits)],), _size(logits))
        self._emit("QUANTIZE", "probabilities", (scores,), _size(logits))
        found = {name: tuple(layers) for name, layers in self.found.items()}
        return Anatomy(tuple(self.operators), tuple(self.sizes), **found)

    def _kinds(self, operation: Any, kind: str, node: Any) -> tuple[str, ...]:
        if kind == "BatchNormalization":
            self._note("lone_batch_norms", operation.name)
        if kind in _IDLE or self._is_absorbed(operation, kind, node):
            return ()
        if kind == "ReLU":
            is_plain = operation.max_value is None
            return ("RELU",) if is_plain else ("RELU6",)
        made = _LAYERS.get(kind, () if kind == "Activation" else None)
        activation = getattr(getattr(operation, "activation", None), "__name__", "linear")
        after = _ACTIVATIONS.get(activation)
        if made is None or after is None:
            self._note("unknown", f"{operation.name} ({kind if made is None else activation})")
            return (*(made or ()), *(after or ()))
        if activation in ("silu", "hard_silu"):
            self._note("swish" if activation == "silu" else "hard_swish", operation.name)
        return (*made, *after)

    def _is_absorbed(self, operation: Any, kind: str, node: Any) -> bool:
        """Whether the converter makes it a part of the operator before or behind it."""
        if kind == "ZeroPadding2D":
            return _is_same_padding(operation, self.takers[id(node.output_tensors[0])])
        number = self.tensors.get(id(node.input_tensors[0]), -1) if node.input_tensors else -1
        before = next((o.kind for o in self.operators if o.output == number), "")
        if kind == "Reshape":
            return before == "MEAN"
        return kind == "Add" and len(node.input_tensors) == 1 and before in _FUSING

    def _is_fusable(self, number: int, node: Any, step: int) -> bool:
        """Whether an activation goes into the operator before it, of which it is the only taker."""
        before = next((o.kind for o in self.operators if o.output == number), "")
        alone = step > 0 or len(self.takers[id(node.input_tensors[0])]) == 1
        return before in _FUSING and alone

    def _emit(self, kind: str, layer: str, inputs: tuple[int, ...], size: int) -> int:
        self.sizes.append(size)
        self.operators.append(Operator(kind, layer, inputs, len(self.sizes) - 1))
        return len(self.sizes) - 1

    def _note(self, what: str, layer: str) -> None:
        self.found.setdefault(what, []).append(layer)


def _is_squeezed(tensor: Any) -> bool:
    """Whether ``tensor`` comes from pooled features by operations of one input each."""
    for _ in range(_GATE_STEPS):
        operation, node_index, _ = tensor._keras_history
        if type(operation).__name__ in _SQUEEZE:
            return True
        before = operation._inbound_nodes[node_index].input_tensors
        if len(before) != 1:
            return False
        tensor = before[0]
    return False


def _is_same_padding(padding: Any, takers: list[Any]) -> bool:
    """Whether zeros and the one valid convolution that takes them are one with padding "same"."""
    if len(takers) != 1 or getattr(takers[0], "padding", "") != "valid":
        return False
    sizes, takes = padding.input.shape[1:3], takers[0]
    for size, around, kernel, stride in zip(
        sizes, padding.padding, takes.kernel_size, takes.strides, strict=True
    ):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        if tuple(around) != (total // 2, total - total // 2):
            return False
    return True


def _step_size(operation: Any, node: Any, step: int) -> int:
    """Numbers in what the operator ``step`` of a layer makes; only in a separable convolution does
    it differ from the layer's output: the depthwise part keeps the channels of the input."""
    output = node.output_tensors[0]
    if type(operation).__name__ == "SeparableConv2D" and step == 0:
        channels = node.input_tensors[0].shape[-1] * operation.depth_multiplier
        return _size(output) // int(output.shape[-1]) * int(channels)
    return _size(output)


def _size(tensor: Any) -> int:
    """Numbers for one image."""
    return math.prod(size or 1 for size in tensor.shape[1:])
