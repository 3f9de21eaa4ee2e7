"""Copying a functional Keras 3 network to tf_keras layer by layer, and its weights back.

tfmot works on tf_keras networks alone, and not on nested ones: a network inside the network is
laid flat in the copy, and an activation inside a layer becomes a layer of its own. Every copy is
compared with the original on random inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import CopyError
from smidgen.export.guest.layers import activation_layer, guest_layer, operator_output
from smidgen.export.guest.room import tf_keras
from smidgen.export.tensorflow_backend import keras

TOLERANCE = 1e-5
"""Of the largest output: the same operations in another order of rounding."""

_WITH_ACTIVATION = ("Conv", "Dense", "Depthwise", "Separable")
_IMAGES = 4

Path = tuple[str, ...]
"""The names of a layer and of the networks that it lies in, outermost first."""


@dataclass(frozen=True)
class GuestCopy:
    """A tf_keras network, and where its layers come from: path in the original to name here."""

    model: Any
    names: dict[Path, str]

    def give_back(self, guest: Any, network: Any) -> Any:
        """A copy of the Keras 3 ``network`` with the weights of ``guest``.

        Args:
            guest: ``model``, or a tf_keras network whose layers have the same names and weights.
            network: what this copy was made of.

        Returns:
            A Keras 3 network whose outputs equal those of ``guest``.

        Raises:
            CopyError: a layer is missing, or the outputs differ.
        """
        twin = keras.models.clone_model(network)
        twin.set_weights(network.get_weights())
        there = {layer.name: layer for layer in guest.layers}
        for path, layer in weighted_layers(twin).items():
            if path not in self.names or self.names[path] not in there:
                raise CopyError(
                    f"layer {layer.name} is not in the tf_keras network any more: give back a "
                    "network with the layers of the copy"
                )
            layer.set_weights(there[self.names[path]].get_weights())
        check_equal(twin, guest)
        return twin


def copy_to_guest(network: Any) -> GuestCopy:
    """``network`` as a flat tf_keras functional network with the same outputs.

    Args:
        network: a functional Keras 3 network of standard layers, built, float32.

    Raises:
        CopyError: not functional, a layer has no counterpart, or the outputs differ by more than
            1e-5 of the largest one.
    """
    if not isinstance(network, keras.Model) or not hasattr(network, "operations"):
        raise CopyError(
            f"{type(network).__name__} is not a functional Keras network: build it with "
            "keras.Model(inputs, outputs)"
        )
    copier = _Copier()
    inputs = [
        tf_keras.Input(tensor.shape[1:], tensor.shape[0], name=tensor.name, dtype=tensor.dtype)
        for tensor in network.inputs
    ]
    outputs = keras.tree.flatten(copier.run(network, inputs, ()))
    model = tf_keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)
    copier.set_weights()
    check_equal(network, model)
    return GuestCopy(model, {path: twin.name for path, (_, twin) in copier.twins.items()})


def weighted_layers(network: Any, above: Path = ()) -> dict[Path, Any]:
    """The layers of ``network`` that have weights, by path; those of inner networks included."""
    found: dict[Path, Any] = {}
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            found |= weighted_layers(layer, (*above, layer.name))
        elif layer.weights and type(layer).__name__ != "Normalization":
            found[(*above, layer.name)] = layer
    return found


def check_equal(network: Any, guest: Any) -> None:
    """Compare ``network`` with its copy on random inputs in -1..1.

    Raises:
        CopyError: the outputs differ by more than 1e-5 of the largest one.
    """
    pixels = [_noise(tensor.shape) for tensor in network.inputs]
    inputs = pixels if len(pixels) > 1 else pixels[0]
    expected = keras.tree.flatten(network(inputs, training=False))
    with _unfused(guest):
        got = keras.tree.flatten(guest(inputs, training=False))
    for a, b in zip(map(np.asarray, expected), map(np.asarray, got), strict=True):
        worst, largest = float(np.abs(a - b).max()), float(np.abs(a).max())
        if not worst <= TOLERANCE * max(largest, 1e-6):
            raise CopyError(
                f"the tf_keras copy of {network.name} answers otherwise: {worst:.2g} of "
                f"{largest:.2g} (allowed {TOLERANCE:g} of it); report this with the network"
            )


class _Copier:
    """Walks through a network; ``twins``: each layer by path, with its counterpart."""

    def __init__(self) -> None:
        self.twins: dict[Path, tuple[Any, Any]] = {}
        self._taken: set[str] = set()
        self._activations: dict[Path, Any] = {}

    def run(self, network: Any, inputs: list[Any], above: Path) -> Any:
        """The outputs of ``network`` on tf_keras tensors."""
        graph = network._functional if isinstance(network, keras.Sequential) else network
        return graph._run_through_graph(
            inputs,
            call_fn=lambda operation, *args, **kwargs: self._call(operation, args, kwargs, above),
        )

    def set_weights(self) -> None:
        """Let every counterpart have the weights of its original."""
        for layer, twin in self.twins.values():
            if type(layer).__name__ != "Normalization":
                twin.set_weights(layer.get_weights())

    def _call(self, operation: Any, args: Any, kwargs: dict[str, Any], above: Path) -> Any:
        path = (*above, operation.name)
        if isinstance(operation, keras.Model):
            return self.run(operation, keras.tree.flatten((args, kwargs)), path)
        kwargs = {key: value for key, value in kwargs.items() if key not in ("training", "mask")}
        if not isinstance(operation, keras.layers.Layer):
            return operator_output(operation, args, kwargs)
        if path not in self.twins:
            self.twins[path] = (operation, guest_layer(operation, self._name(path)))
        output = self.twins[path][1](*args, **kwargs)
        has_own = type(operation).__name__.startswith(_WITH_ACTIVATION)
        function = getattr(operation, "activation", None) if has_own else None
        if function is None or function is keras.activations.linear:
            return output
        if path not in self._activations:
            name = self._name((*above, f"{operation.name}_activation"))
            self._activations[path] = activation_layer(operation, function, name)
        return self._activations[path](output)

    def _name(self, path: Path) -> str:
        """The layer's own name; where another one has it, with the names of its networks."""
        name = path[-1] if path[-1] not in self._taken else "-".join(path)
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


@contextmanager
def _unfused(guest: Any) -> Iterator[None]:
    """Let batch norms compute step by step as Keras 3 does. The fused operation rounds otherwise,
    by 2e-5 of the largest output of an Inception-v3."""
    norms = [x for x in guest.layers if isinstance(x, tf_keras.layers.BatchNormalization)]
    before = [norm.fused for norm in norms]
    try:
        for norm in norms:
            norm.fused = False
        yield
    finally:
        for norm, fused in zip(norms, before, strict=True):
            norm.fused = fused


def _noise(shape: tuple[int | None, ...]) -> NDArray[np.float32]:
    whole = (shape[0] or _IMAGES, *(side or 64 for side in shape[1:]))
    return np.random.default_rng(0).uniform(-1, 1, whole).astype(np.float32)
