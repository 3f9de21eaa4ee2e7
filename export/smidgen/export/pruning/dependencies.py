"""Which channels of a network can leave it together: its dependency graph, channel by channel.

Every convolution and dense layer makes new channels; depthwise convolutions, batch norms,
activations and poolings hand them on; an addition or multiplication says that channel i of one
input and channel i of the other are the same channel. So each channel is a class of positions in
kernels and batch norms, and all of them must go at once (the idea of DepGraph: Fang et al. 2023,
arXiv:2301.12900). Channels stay where the network's ends, an addition of a shortcut, or a layer
that is not known here touches them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import PruningError
from smidgen.export.tensorflow_backend import keras

_L = keras.layers
_HANDED_ON = (
    _L.ReLU, _L.LeakyReLU, _L.ELU, _L.Dropout, _L.SpatialDropout2D, _L.GaussianDropout,
    _L.GaussianNoise, _L.ActivityRegularization, _L.ZeroPadding2D, _L.Cropping2D, _L.UpSampling2D,
    _L.MaxPooling2D, _L.AveragePooling2D, _L.GlobalAveragePooling2D, _L.GlobalMaxPooling2D,
    _L.Identity,
)  # fmt: skip
_POINTWISE = ("linear", "relu", "relu6", "leaky_relu", "elu", "silu", "swish", "hard_silu",
              "hard_swish", "gelu", "sigmoid", "hard_sigmoid", "tanh")  # fmt: skip


@dataclass(frozen=True)
class ChannelGroup:
    """The channels that one or several layers make, and that may be removed one by one.

    ``name``: the first layer that makes them. ``channels``: their ids, ``(C,) int64``. ``makers``:
    convolutions and dense layers with one output for each. ``norms``: batch norms they pass, in
    order; ``gate``: the layer whose output says best what a channel gives to those behind: the last
    norm, or where there is none the last maker.
    """

    name: str
    channels: NDArray[np.int64]
    makers: tuple[str, ...]
    norms: tuple[str, ...]
    gate: str


@dataclass(frozen=True)
class Dependencies:
    """For each layer that is known, by name, the channel ids at its (first) input and its output.

    ``entering`` and ``leaving``: ``(C,) int64`` each. ``groups``: what may be removed, in the order
    of the network. ``kept``: the groups that stay, each with the reason.
    """

    entering: dict[str, NDArray[np.int64]]
    leaving: dict[str, NDArray[np.int64]]
    groups: tuple[ChannelGroup, ...]
    kept: tuple[str, ...]


def dependencies_of(network: Any) -> Dependencies:
    """Trace the functional Keras ``network``, channels last.

    Raises:
        PruningError: it is not a functional model with one input and one output, or no channel of
            it can be removed.
    """
    is_functional = isinstance(network, keras.Model) and hasattr(network, "operations")
    if not is_functional or len(network.inputs) != 1 or len(network.outputs) != 1:
        raise PruningError(
            f"{type(network).__name__} is not a functional Keras model with one input and one "
            "output: build it with keras.Model(input, output)"
        )
    trace = _Trace(network)
    found = trace.run()
    if not found.groups:
        reasons = "; ".join(found.kept[:3]) or "it has no convolution or dense layer inside"
        raise PruningError(
            f"no channel of {network.name} can be removed ({reasons}): expected a network with "
            "inner convolutions, such as an EfficientNet; set channels.keep = 1 for this one"
        )
    return found


class _Trace:
    """Walks through a network once; ``_parent`` is a union-find over channel ids."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._parent: list[int] = []
        self._stays: dict[int, str] = {}
        self._touched: dict[int, str] = {}
        self._makers: dict[str, NDArray[np.int64]] = {}
        self._of_tensor: dict[int, NDArray[np.int64]] = {}
        self._entering: dict[str, NDArray[np.int64]] = {}
        self._leaving: dict[str, NDArray[np.int64]] = {}

    def run(self) -> Dependencies:
        inside = {id(n) for nodes in self._network._nodes_by_depth.values() for n in nodes}
        uses = [
            (operation, [node for node in operation._inbound_nodes if id(node) in inside])
            for operation in self._network.operations
        ]
        for operation, nodes in uses:
            if not _is_simple(nodes):
                self._touched |= {id(t): _needs_all(operation) for n in nodes for t in _ends(n)}
        for operation, nodes in uses:
            self._visit(operation, nodes)
        self._keep(self._of_tensor[id(self._network.outputs[0])], "it is the output")
        entering = {name: self._roots(ids) for name, ids in self._entering.items()}
        leaving = {name: self._roots(ids) for name, ids in self._leaving.items()}
        groups, kept = self._groups(leaving)
        return Dependencies(entering, leaving, groups, kept)

    def _visit(self, operation: Any, nodes: Sequence[Any]) -> None:
        rule = _rule_of(operation)
        if rule is not None and _is_simple(nodes):
            taken = [self._of_tensor[id(tensor)] for tensor in nodes[0].input_tensors]
            result = rule(self, nodes[0], taken)
            (made,) = nodes[0].output_tensors
            if result is not None and len(result) == made.shape[-1]:
                self._set(made, result)
                self._entering[operation.name], self._leaving[operation.name] = taken[0], result
                return
        reason = _needs_all(operation)
        for node in nodes:
            for tensor in node.input_tensors:
                self._keep(self._of_tensor.get(id(tensor), ()), reason)
            for tensor in node.output_tensors:
                self._touched[id(tensor)] = reason
                self._set(tensor, self._fresh((tensor.shape or (1,))[-1] or 1))

    def _set(self, tensor: Any, ids: NDArray[np.int64]) -> None:
        self._of_tensor[id(tensor)] = ids
        if id(tensor) in self._touched:
            self._keep(ids, self._touched[id(tensor)])

    # rules: channel ids of the inputs to those of the output; None: not known

    def make(self, node: Any, _taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        layer = node.operation
        if getattr(layer, "groups", 1) != 1 or not _is_pointwise(layer):
            return None
        fresh = self._fresh(int(layer.kernel.shape[-1]))
        self._makers[layer.name] = fresh
        return fresh

    def hand_on(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        layer = node.operation
        return taken[0] if _is_pointwise(layer) else None

    def normalise(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        layer = node.operation
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        return taken[0] if axis in (-1, len(node.input_tensors[0].shape) - 1) else None

    def depthwise(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        layer = node.operation
        return taken[0].repeat(layer.depth_multiplier) if _is_pointwise(layer) else None

    def flatten(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        return np.tile(taken[0], int(node.output_tensors[0].shape[-1]) // len(taken[0]))

    def reshape(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        return (
            taken[0]
            if node.input_tensors[0].shape[-1] == node.output_tensors[0].shape[-1]
            else None
        )

    def rescale(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        layer = node.operation
        return taken[0] if np.ndim(layer.scale) == np.ndim(layer.offset) == 0 else None

    def join(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        axis = node.operation.axis
        is_last = axis in (-1, len(node.output_tensors[0].shape) - 1)
        return np.concatenate(taken) if is_last else None

    def multiply(self, _node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        if len({len(ids) for ids in taken}) != 1:
            return None
        for other in taken[1:]:
            for one, two in zip(taken[0], other):
                self._unite(int(one), int(two))
        return taken[0]

    def add(self, node: Any, taken: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
        united = self.multiply(node, taken)
        if united is not None:
            self._keep(united, f"{node.operation.name} adds a shortcut to them")
        return united

    def _fresh(self, count: int) -> NDArray[np.int64]:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def _roots(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self._root(int(channel)) for channel in ids], np.int64)

    def _unite(self, one: int, two: int) -> None:
        one, two = sorted((self._root(one), self._root(two)))
        self._parent[two] = one

    def _keep(self, ids: Iterable[int], reason: str) -> None:
        for channel in ids:
            self._stays.setdefault(int(channel), reason)

    def _groups(
        self, leaving: dict[str, NDArray[np.int64]]
    ) -> tuple[tuple[ChannelGroup, ...], tuple[str, ...]]:
        """What the makers make, those of the same channels together."""
        stays: dict[int, str] = {}
        for channel, reason in self._stays.items():
            stays.setdefault(self._root(channel), reason)
        made: dict[tuple[int, ...], list[str]] = {}
        for name in self._makers:
            made.setdefault(tuple(leaving[name]), []).append(name)
        counts: dict[int, int] = {}
        for channels in made:
            for channel in channels:
                counts[channel] = counts.get(channel, 0) + 1
        groups, kept = [], []
        for channels, makers in made.items():
            reasons = [stays[channel] for channel in channels if channel in stays]
            if reasons or any(counts[channel] > 1 for channel in channels):
                kept.append(f"{makers[0]}: {reasons[0] if reasons else 'shared in part'}")
                continue
            groups.append(self._group(channels, makers, leaving))
        return tuple(groups), tuple(kept)

    def _group(
        self, channels: tuple[int, ...], makers: list[str], leaving: dict[str, NDArray[np.int64]]
    ) -> ChannelGroup:
        norms = [
            layer.name
            for layer in self._network.layers
            if isinstance(layer, keras.layers.BatchNormalization)
            and tuple(leaving.get(layer.name, ())) == channels
        ]
        gate = norms[-1] if norms else makers[-1]
        return ChannelGroup(makers[0], np.array(channels), tuple(makers), tuple(norms), gate)


def _is_simple(nodes: Sequence[Any]) -> bool:
    """Whether an operation is used once, on something, and gives one tensor."""
    return len(nodes) == len(nodes[0].output_tensors) == 1 and bool(nodes[0].input_tensors)


def _needs_all(operation: Any) -> str:
    if isinstance(operation, _L.InputLayer):
        return "it is the input"
    return f"{operation.name} ({type(operation).__name__}) needs all of them"


def _ends(node: Any) -> list[Any]:
    return [*node.input_tensors, *node.output_tensors]


_Rule = Callable[[_Trace, Any, list[NDArray[np.int64]]], "NDArray[np.int64] | None"]


def _rule_of(operation: Any) -> _Rule | None:
    rules: tuple[tuple[Any, _Rule], ...] = (
        (_L.DepthwiseConv2D, _Trace.depthwise),
        ((_L.Conv2D, _L.Dense), _Trace.make),
        (_L.BatchNormalization, _Trace.normalise),
        ((*_HANDED_ON, _L.Activation), _Trace.hand_on),
        (_L.Rescaling, _Trace.rescale),
        (_L.Flatten, _Trace.flatten),
        (_L.Reshape, _Trace.reshape),
        (_L.Concatenate, _Trace.join),
        (_L.Multiply, _Trace.multiply),
        (_L.Add, _Trace.add),
    )
    return next((rule for kinds, rule in rules if isinstance(operation, kinds)), None)


def _is_pointwise(layer: Any) -> bool:
    """Channels last, and an activation (if any) that looks at each number by itself."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return False
    activation = getattr(layer, "activation", None)
    return activation is None or getattr(activation, "__name__", "") in _POINTWISE
