"""A float model from any Keras model file, with labels and a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smidgen.export.errors import SourceError
from smidgen.export.pictures import picture_of
from smidgen.export.source import ChannelNormalization, FloatModel, TrainingData
from smidgen.runtime.files import sha256_of_file
from smidgen.train.data import Dataset, Inventory, divide
from smidgen.train.data.scan import take_inventory
from smidgen.train.errors import WeightsError
from smidgen.train.recipe import DataRecipe, TrainRecipe

_AS_THEY_ARE = ChannelNormalization.of(0.0, 1.0)


@dataclass(frozen=True)
class KerasFile:
    """A Keras model file and all that it does not say of itself.

    ``labels``: in the order of the outputs. ``normalization``: what pixels 0..255 become before
    they enter the model; mean 0 and std 1 where the model takes pixels as they are. ``data``: a
    folder of labelled images with its settings; its train split calibrates and tunes, its test
    split is held out. The gate is worth something only where the model has not seen those.
    """

    path: Path
    labels: tuple[str, ...]
    data: DataRecipe
    normalization: ChannelNormalization = _AS_THEY_ARE


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of a text file, a line each, in the order of the outputs. Raises SourceError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the labels in {path} ({error})") from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise SourceError(
            f"{path} holds {len(labels)} labels, {len(set(labels))} of them different: expected a "
            "line for each output of the model, each once"
        )
    return labels


def from_keras_file(file: KerasFile) -> FloatModel:
    """The float model of ``file``.

    Raises:
        SourceError: the model cannot be loaded, or does not fit labels or images.
        DataError: the images cannot be used.
    """
    network = _logits_network(_loaded(file.path), file.path)
    side = _side(network, file.path)
    outputs = int(network.output_shape[-1])
    if outputs != len(file.labels):
        raise SourceError(
            f"{file.path} has {outputs} outputs and there are {len(file.labels)} labels: give one "
            "label for each output, in their order"
        )
    data = replace(file.data, image_size=side, folder=str(Path(file.data.folder).resolve()))
    inventory = take_inventory(data.folder, data)
    dataset = _dataset(inventory, data, file.labels)
    # of folders by class nobody knows what the model was trained on, so nothing is fitted there
    validation = dataset.validation if inventory.ready_splits else ()
    digest = sha256_of_file(file.path)
    return FloatModel(
        name=file.path.stem,
        source=file.path.name,
        backbone=str(network.name),
        labels=file.labels,
        preprocessing=data.preprocessing(),
        normalization=file.normalization,
        load=lambda: network,
        weights_sha256=digest,
        data_sha256=dataset.sha256,
        calibration_pool=tuple(map(picture_of, dataset.train)),
        held_out=tuple(map(picture_of, dataset.test)),
        validation=tuple(map(picture_of, validation)),
        training=TrainingData(TrainRecipe(data), dataset),
    )


def _loaded(path: Path) -> Any:
    from smidgen.export.tensorflow_backend import captured_output, keras
    from smidgen.train.models.weights import load_network

    try:
        with captured_output():
            network = load_network(path)
    except WeightsError as error:
        raise SourceError(f"cannot load the model ({error}): save it as a .keras file") from error
    if not isinstance(network, keras.Model) or not hasattr(network, "operations"):
        raise SourceError(
            f"{path} holds a {type(network).__name__}: expected a functional or sequential model"
        )
    if isinstance(network, keras.Sequential):
        network = keras.Model(network.inputs[0], network.outputs[0], name=network.name)
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise SourceError(
            f"{path} has {len(network.inputs)} inputs and {len(network.outputs)} outputs: expected "
            "one image in and one row of scores out"
        )
    return network


def _side(network: Any, path: Path) -> int:
    shape = tuple(network.input_shape)
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or not shape[1]:
        raise SourceError(
            f"{path} takes {shape}: expected square images (None, S, S, 3) of a fixed size"
        )
    return int(shape[1])


def _logits_network(network: Any, path: Path) -> Any:
    """``network`` up to its logits: without softmax, and with two outputs for one sigmoid unit.

    Raises:
        SourceError: the last layer is none whose logits can be taken.
    """
    from smidgen.export.tensorflow_backend import keras
    from smidgen.train.models.heads import deployable

    last = network.outputs[0]._keras_history.operation
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax) or (
        isinstance(last, keras.layers.Activation) and activation is keras.activations.softmax
    ):
        return keras.Model(network.inputs[0], last.input, name=network.name)
    one_unit = int(network.output_shape[-1]) == 1
    ends = {keras.activations.softmax: not one_unit, keras.activations.sigmoid: one_unit}
    if ends.get(activation, False):
        network = _linear(network, last)
    elif activation not in (None, keras.activations.linear):
        name = getattr(activation, "__name__", str(activation))
        raise SourceError(
            f"{path} ends in the layer {last.name!r} with the activation {name!r}: expected "
            "softmax, one sigmoid unit, or logits"
        )
    return deployable(_named(network, last.name)) if one_unit else network


def _linear(network: Any, last: Any) -> Any:
    """A copy with the same weights whose layer ``last`` has no activation."""
    from smidgen.export.tensorflow_backend import keras

    def twin(layer: Any) -> Any:
        config = layer.get_config()
        if layer is last:
            config["activation"] = "linear"
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=twin)
    copy.set_weights(network.get_weights())
    return copy


def _named(network: Any, last: str) -> Any:
    """A copy whose layer ``last`` is called ``logits``, as ``deployable`` knows it."""
    from smidgen.export.tensorflow_backend import keras

    def twin(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name == last:
            config["name"] = "logits"
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=twin)
    copy.set_weights(network.get_weights())
    return copy


def _dataset(inventory: Inventory, data: DataRecipe, labels: Sequence[str]) -> Dataset:
    """The images divided, with the indices of ``labels``."""
    unknown = sorted(set(inventory.labels) - set(labels))
    if unknown:
        raise SourceError(
            f"{data.folder} has images of {unknown[0]!r}, which is none of the {len(labels)} "
            f"labels ({', '.join(labels[:5])} ...): name folders and labels alike"
        )
    dataset = divide(inventory, data.shares, data.seed)
    index = [labels.index(label) for label in inventory.labels]

    def renumbered(examples: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(replace(example, label=index[example.label]) for example in examples)

    return replace(
        dataset,
        labels=tuple(labels),
        train=renumbered(dataset.train),
        validation=renumbered(dataset.validation),
        test=renumbered(dataset.test),
    )
