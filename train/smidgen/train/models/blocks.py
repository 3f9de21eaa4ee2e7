"""Where a network can be divided: its named blocks, what is frozen, and cutting it in two.

A Keras functional graph is a list of operations in topological order. An operation is a cut where
everything behind it depends on what lies before only through its output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from smidgen.runtime.errors import SchemaError
from smidgen.train.models.backbones import BACKBONES
from smidgen.train.models.network import FEATURES, POOL
from smidgen.train.recipe import ModelRecipe

_BLOCK = re.compile(r"(block_?\d+[a-z]?|conv\d_block\d+|mixed\d+|expanded_conv(_\d+)?)(?=_|$)")


def blocks_of(network: Any) -> tuple[str, ...]:
    """Names of the blocks of a network of one backbone, in order: ``block_00``, ``block1a``,
    ``conv2_block1``, ``mixed0``, ``expanded_conv_1`` ... A block's layers begin with its name."""
    names = (_block_of(operation) for operation in network.operations)
    return tuple(dict.fromkeys(name for name in names if name))


def freeze_boundary(network: Any, freeze_to: str, model: ModelRecipe) -> str | None:
    """The name of the last frozen layer; None where nothing is frozen.

    Args:
        network: what ``build`` made of ``model``.
        freeze_to: ``none``; ``all``: up to the pooled features; the beginning of layer names that
            ends before a digit or at the end of a name, as ``block_12``, ``block4``, ``conv4``; or
            ``auto``: the table's block; all of an ensemble; nothing of a network whose weights are
            random.
        model: the network's recipe.

    Raises:
        SchemaError: no layer has such a name, or the network is an ensemble; names what is allowed.
    """
    if freeze_to == "auto":
        freeze_to = _own_choice(model)
    if freeze_to == "none":
        return None
    if freeze_to == "all":
        return FEATURES if model.ensemble else POOL
    if model.ensemble:
        raise SchemaError(
            f"schedule.freeze_to = {freeze_to!r} with model.ensemble: a block lies in one network "
            "only; allowed auto, all, none"
        )
    graph = _Graph.of(network)
    start = re.compile(re.escape(freeze_to) + r"(?!\d)")
    in_block = {i for i, op in enumerate(graph.operations) if start.match(op.name)}
    in_block -= set(range(graph.index(POOL), len(graph.operations)))
    if not in_block or not freeze_to:
        raise SchemaError(
            f"schedule.freeze_to = {freeze_to!r}: {model.backbone} has no such block; allowed "
            f"auto, all, none, or one of {', '.join(blocks_of(network))}"
        )
    return str(graph.operations[_whole(graph, in_block)].name)


def frozen_layers(network: Any, boundary: str | None) -> list[Any]:
    """The layers that the output of ``boundary`` depends on, it included, in topological order."""
    if boundary is None:
        return []
    graph = _Graph.of(network)
    wanted = {graph.index(boundary)}
    for index in range(max(wanted), -1, -1):
        if index in wanted:
            wanted.update(graph.producers[index])
    chosen = (graph.operations[index] for index in sorted(wanted))
    return [operation for operation in chosen if isinstance(operation, keras.layers.Layer)]


def cut(network: Any, boundary: str) -> tuple[Any, Any] | None:
    """``(lower, upper)``: the network up to the output of ``boundary``, and from there to logits.

    Both are ``keras.Model`` and share the layers of ``network``: ``upper(lower(x))`` is
    ``network(x)``. None where something passes by ``boundary``.
    """
    graph = _Graph.of(network)
    index = graph.index(boundary)
    if index not in graph.cuts():
        return None
    between = graph.operations[index].output
    lower = keras.Model(network.inputs[0], between, name="lower")
    return lower, keras.Model(between, network.outputs[0], name="upper")


def _own_choice(model: ModelRecipe) -> str:
    if model.weights == "none":
        return "none"
    return "all" if model.ensemble else BACKBONES[model.backbone].freeze_to


def _block_of(operation: Any) -> str | None:
    match = _BLOCK.match(operation.name)
    return match[0] if match else None


@dataclass(frozen=True)
class _Graph:
    """Operations in topological order, and for each the positions of those that feed it."""

    operations: tuple[Any, ...]
    producers: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, network: Any) -> _Graph:
        operations = tuple(network.operations)
        position = {
            id(tensor): index
            for index, operation in enumerate(operations)
            for tensor in _flat(operation.output)
        }
        producers = tuple(
            frozenset(position[id(tensor)] for tensor in _flat(operation.input)) - {index}
            for index, operation in enumerate(operations)
        )
        return cls(operations, producers)

    def index(self, name: str) -> int:
        return next(i for i, operation in enumerate(self.operations) if operation.name == name)

    def cuts(self) -> set[int]:
        """Positions of the operations through whose output everything passes."""
        last_use = [-1] * len(self.operations)
        for index, feeding in enumerate(self.producers):
            for producer in feeding:
                last_use[producer] = index
        found = set()
        for index in range(len(self.operations) - 1):
            if all(last_use[before] <= index for before in range(index)):
                found.add(index)
        return found


def _whole(graph: _Graph, in_block: set[int]) -> int:
    """The position where a block really ends: at its next cut, such as an unnamed addition.

    Not where layers of a later block lie on the way.
    """
    last = max(in_block)
    for index in range(last, len(graph.operations)):
        if index > last and _block_of(graph.operations[index]):
            break
        if index in graph.cuts():
            return index
    return last


def _flat(tensors: Any) -> Iterable[Any]:
    flat: list[Any] = keras.tree.flatten(tensors)
    return flat
