"""The networks of ``keras.applications``, made to our contract: normalised RGB in, feature map out.

Layers keep the names that they have there in a fresh process. Normalisation that Keras puts inside
a network is left out; networks that Keras feeds with BGR get their first kernel turned.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from smidgen.train.errors import WeightsMismatch, WeightsMissing
from smidgen.train.models.backbones import Application, Backbone

_STRIPPED = (keras.layers.Rescaling, keras.layers.Normalization)
_NUMBER = re.compile(r"_(\d+)$")


def feature_map(
    application: Application, image: Any, prefix: str = "", normalize: Any = None
) -> Any:
    """The network on the ``keras.Input`` ``image``, with fresh weights and no head.

    Args:
        application: which one.
        image: ``(N, S, S, 3) float32``, pixels under the normalisation of the table.
        prefix: put before the name of each layer.
        normalize: a layer that comes first, where ``image`` is not normalised.

    Returns:
        The Keras tensor ``(N, h, w, features) float32``.
    """
    model = _application(application, int(image.shape[1]))
    names = layer_names(model)
    start = image if normalize is None else normalize(image)

    def new_layer(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config({**config, "name": prefix + names[layer.name]})

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, _STRIPPED):
            return args[0]
        return layer(*(start if arg is image else arg for arg in args), **kwargs)

    clone = keras.models.clone_model(
        model, input_tensors=image, clone_function=new_layer, call_function=call
    )
    return clone.outputs[0]


def published_weights(
    facts: Backbone, application: Application, with_logits: bool
) -> dict[str, list[np.ndarray]]:
    """ImageNet weights by layer, fetched by Keras (or from its cache).

    ``with_logits``: with the 1,000-class layer, where the network ends in one.

    Raises:
        WeightsMissing: they cannot be fetched.
    """
    has_top = with_logits and application.has_linear_top
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws a progress bar; stdout is data
            model = _application(
                application, facts.image_size, weights="imagenet", include_top=has_top
            )
    except Exception as error:  # get_file raises a bare Exception
        raise WeightsMissing(
            f"cannot fetch the ImageNet weights of {application.name} ({_line(error)}); connect to "
            "the network, or set model.weights to the path of the .h5 file of keras.applications, "
            "or to none"
        ) from error
    return _weights(model, facts, application, f"the ImageNet weights of {application.name}")


def read_weights(
    path: Path, facts: Backbone, application: Application
) -> dict[str, list[np.ndarray]]:
    """The weights by layer of a ``.h5`` or ``.weights.h5`` file that keras.applications' network
    loads: with its classifier or without.

    They are taken to expect what ``preprocess_input`` of that network gives.

    Raises:
        WeightsMismatch: not such a file, or of another network.
    """
    try:
        model = _application(application, facts.image_size)
        classes = _classes_in(path, model, application)
        if classes is not None:
            model = _application(application, facts.image_size, include_top=True, classes=classes)
        with warnings.catch_warnings(action="ignore"):  # what does not fit is an error in the end
            model.load_weights(path)
    except (ValueError, TypeError, OSError, KeyError, IndexError) as error:
        raise WeightsMismatch(
            f"{path} does not hold the weights of keras.applications' {application.name} "
            f"({_line(error)}); is it another network?"
        ) from error
    return _weights(model, facts, application, str(path))


def layer_names(model: Any) -> dict[str, str]:
    """For each operation of ``model``: its name in a process that built nothing before.

    Keras numbers the layers that were given no name through all networks of a process.
    """
    first: dict[str, int] = {}
    numbered = [(op.name, *_numbered(op)) for op in model.operations]
    for _, base, number in numbered:
        if base:
            first[base] = min(number, first.get(base, number))
    result = {}
    for name, base, number in numbered:
        count = number - first.get(base, 0)
        result[name] = (f"{base}_{count}" if count else base) if base else name
    return result


def _numbered(operation: Any) -> tuple[str, int]:
    """``("conv2d", 7)`` for an unnamed layer that Keras called ``conv2d_7``; ``("", 0)`` else."""
    match = _NUMBER.search(operation.name)
    base = operation.name[: match.start()] if match else operation.name
    if base.replace("_", "") != type(operation).__name__.lower():
        return "", 0
    return base, int(match[1]) if match else 0


def _application(application: Application, image_size: int, **options: Any) -> Any:
    options = {"include_top": False, "weights": None, **options}
    if application.takes_preprocessing_option:
        options["include_preprocessing"] = False
    function = getattr(keras.applications, application.name)
    return function(input_shape=(image_size, image_size, 3), **options)


def _classes_in(path: Path, model: Any, application: Application) -> int | None:
    """How many classes the file's classifier has; None where it has none that must be built.

    Older files list their layers in order, and Keras loads them only into as many layers. Newer
    ones are loaded by name, whatever else they hold.
    """
    import h5py

    with h5py.File(path, "r") as file:
        root = file if "layer_names" in file.attrs else file.get("model_weights", file)
        if "layer_names" in root.attrs:
            groups = [root[name] for name in root.attrs["layer_names"]]
            groups = [group for group in groups if len(group.attrs["weight_names"])]
            expected = sum(1 for layer in model.layers if layer.weights)
            if len(groups) <= expected:
                return None
            return int(groups[-1][groups[-1].attrs["weight_names"][-1]].shape[-1])
        if application.has_linear_top and "layers/dense/vars/1" in file:
            return int(file["layers/dense/vars/1"].shape[-1])
    return None


def _weights(
    model: Any, facts: Backbone, application: Application, source: str
) -> dict[str, list[np.ndarray]]:
    """The arrays of ``model`` by layer, turned into what our normalisation needs."""
    names = layer_names(model)
    result = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            _check_constants(layer, facts, source)
        elif layer.weights:
            name = names[layer.name]
            is_logits = application.has_linear_top and name == "predictions"
            result["logits" if is_logits else name] = layer.get_weights()
    if application.caffe_conv is not None:
        kernel, *bias = result[application.caffe_conv]
        std = np.array(facts.normalization.std, np.float32)[:, None]
        result[application.caffe_conv] = [kernel[:, :, ::-1, :] * std, *bias]
    return result


def _check_constants(layer: Any, facts: Backbone, source: str) -> None:
    """Raise WeightsMismatch unless an EfficientNet normalised its input as the table says.

    The published files hold the deviations in place of the variances, and Keras' builder divides by
    their square root once more.
    """
    mean, variance = (np.asarray(array, np.float64).ravel() for array in layer.get_weights()[:2])
    expected_mean = np.array(facts.normalization.mean) / 255
    expected_std = np.array(facts.normalization.std) / 255
    is_published = np.allclose(variance, expected_std, rtol=1e-3)
    is_plain = np.allclose(variance, expected_std**2, rtol=1e-3)
    if np.allclose(mean, expected_mean, atol=1e-3) and (is_published or is_plain):
        return
    raise WeightsMismatch(
        f"{source} normalises its input with the means {_rounded(mean)} and variances "
        f"{_rounded(variance)}; expected the means {_rounded(expected_mean)} and variances "
        f"{_rounded(expected_std**2)} of ImageNet"
    )


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
