"""What each layer of Keras 3 is in tf_keras: classes, activations and operators, one table each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from smidgen.export.errors import CopyError
from smidgen.export.guest.room import tf_keras
from smidgen.export.tensorflow_backend import keras, tf

_NAMES = (
    "Add AlphaDropout Average AveragePooling1D AveragePooling2D BatchNormalization Concatenate "
    "Conv1D Conv2D Conv2DTranspose Cropping2D Dense DepthwiseConv2D Dot Dropout ELU Flatten "
    "GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D "
    "GlobalMaxPooling1D GlobalMaxPooling2D GroupNormalization LayerNormalization MaxPooling1D "
    "MaxPooling2D Maximum Minimum Multiply PReLU Permute ReLU RepeatVector Rescaling Reshape "
    "SeparableConv1D SeparableConv2D Softmax SpatialDropout1D SpatialDropout2D Subtract "
    "UnitNormalization UpSampling2D ZeroPadding2D"
)
SAME_CLASSES = frozenset(_NAMES.split())
"""Layers that have the same name, settings and weights in tf_keras."""

_LEFT_OUT = ("_initializer", "_regularizer", "_constraint")
"""Settings that have no meaning for a trained layer; the two libraries write them differently."""


def hard_sigmoid(x: Any) -> Any:
    """``relu6(x + 3) / 6``, as Keras 3 has it; tf_keras' own is another line."""
    return tf.nn.relu6(x + 3.0) / 6.0


def hard_silu(x: Any) -> Any:
    """``x * relu6(x + 3) / 6`` (Howard et al. 2019, MobileNetV3)."""
    return x * hard_sigmoid(x)


OWN_FUNCTIONS = {"hard_sigmoid": hard_sigmoid, "hard_silu": hard_silu}

_ACTIVATIONS: dict[str, Callable[[str], Any]] = {
    "relu": lambda name: tf_keras.layers.ReLU(name=name),
    "relu6": lambda name: tf_keras.layers.ReLU(6.0, name=name),
    "leaky_relu": lambda name: tf_keras.layers.LeakyReLU(0.2, name=name),
    "elu": lambda name: tf_keras.layers.ELU(name=name),
    "softmax": lambda name: tf_keras.layers.Softmax(name=name),
    "silu": lambda name: tf_keras.layers.Activation("swish", name=name),
    **{
        same: lambda name, same=same: tf_keras.layers.Activation(same, name=name)  # type: ignore[misc]
        for same in ("sigmoid", "tanh", "softplus", "softsign", "selu", "exponential", "gelu",
                     "mish", "linear")
    },
    **{
        own: lambda name, function=function: tf_keras.layers.Activation(function, name=name)  # type: ignore[misc]
        for own, function in OWN_FUNCTIONS.items()
    },
}  # fmt: skip
"""From the name of a function of ``keras.activations`` to a layer of tf_keras."""

_SUMS = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum",
         "Minimum": "Minimum"}  # fmt: skip
"""Operators on two tensors of one shape, and the layers that do the same."""

_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, a, b: a + b,
    "Subtract": lambda _, a, b: a - b,
    "Multiply": lambda _, a, b: a * b,
    "Divide": lambda _, a, b: a / b,
    "TrueDivide": lambda _, a, b: a / b,
    "Maximum": lambda _, a, b: tf.maximum(a, b),
    "Minimum": lambda _, a, b: tf.minimum(a, b),
    "Negative": lambda _, a: -a,
    "Square": lambda _, a: tf.square(a),
    "Sqrt": lambda _, a: tf.sqrt(a),
    "Clip": lambda op, a: tf.clip_by_value(a, op.x_min, op.x_max),
    "Cast": lambda op, a: tf.cast(a, op.dtype),
    "Mean": lambda op, a: tf.reduce_mean(a, axis=op.axis, keepdims=op.keepdims),
    "Sum": lambda op, a: tf.reduce_sum(a, axis=op.axis, keepdims=op.keepdims),
    "Max": lambda op, a: tf.reduce_max(a, axis=op.axis, keepdims=op.keepdims),
    "Transpose": lambda op, a: tf.transpose(a, op.axes),
    "Concatenate": lambda op, xs: tf.concat(xs, axis=op.axis),
    "Relu": lambda _, a: tf.nn.relu(a),
    "Relu6": lambda _, a: tf.nn.relu6(a),
    "LeakyRelu": lambda op, a: tf.nn.leaky_relu(a, op.negative_slope),
    "Sigmoid": lambda _, a: tf.sigmoid(a),
    "Tanh": lambda _, a: tf.tanh(a),
    "Silu": lambda _, a: a * tf.sigmoid(a),
    "HardSigmoid": lambda _, a: hard_sigmoid(a),
    "HardSilu": lambda _, a: hard_silu(a),
    "Softplus": lambda _, a: tf.nn.softplus(a),
    "Gelu": lambda op, a: tf.nn.gelu(a, op.approximate),
    "Softmax": lambda op, a: tf.nn.softmax(a, axis=op.axis),
}
"""Operators of ``keras.ops`` in TensorFlow's terms; the first argument is the operation."""

_POINTWISE = ("Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "HardSigmoid", "HardSilu", "Softplus")


def guest_layer(layer: Any, name: str) -> Any:
    """The tf_keras layer that does what the Keras 3 ``layer`` does, without its activation.

    Raises:
        CopyError: there is none; the message names the layer.
    """
    kind = type(layer).__name__
    if not type(layer).__module__.startswith("keras."):
        raise _refusal(layer, "its class is not one of Keras' own", "")
    if kind == "Activation":
        return activation_layer(layer, layer.activation, name)
    config = {key: value for key, value in layer.get_config().items() if _is_kept(key)}
    config |= {"name": name, "dtype": "float32"}
    if layer.compute_dtype != "float32":
        raise _refusal(layer, f"it computes in {layer.compute_dtype}", "make it float32")
    if kind == "Normalization":
        return _normalization(layer, name)
    if kind == "LeakyReLU":
        return tf_keras.layers.LeakyReLU(layer.negative_slope, name=name)
    if kind in ("Identity", "ActivityRegularization"):
        return tf_keras.layers.Activation("linear", name=name)
    if kind not in SAME_CLASSES:
        raise _refusal(layer, f"{kind} has no counterpart that is known to give the same", "")
    if "activation" in config:
        config["activation"] = "linear"
    twin = getattr(tf_keras.layers, kind)
    known = set(inspect.signature(twin.__init__).parameters) | {"name", "dtype", "trainable"}
    return twin(**{key: value for key, value in config.items() if key in known})


def activation_layer(layer: Any, function: Any, name: str) -> Any:
    """The activation ``function`` of the Keras 3 ``layer`` as a tf_keras layer of its own.

    Raises:
        CopyError: the function is not one of ``keras.activations`` that tf_keras has too.
    """
    for known, make in _ACTIVATIONS.items():
        if function is getattr(keras.activations, known):
            return make(name)
    what = getattr(function, "__name__", type(function).__name__)
    raise _refusal(layer, f"its activation {what} has no counterpart", "use relu, relu6 or silu")


def operator_output(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the ``keras.ops`` ``operation`` makes of tf_keras tensors.

    Raises:
        CopyError: the operation is not in the table, or has arguments by other names.
    """
    kind = type(operation).__name__
    if kind == "Reshape":
        return tf_keras.layers.Reshape([-1 if n is None else n for n in operation.newshape[1:]])(
            args[0]
        )
    if kind not in _OPERATORS or not type(operation).__module__.startswith("keras."):
        raise _refusal(operation, f"the operator {kind} is not known here", "use a layer for it")
    if kind in _SUMS and _are_alike([*args, *kwargs.values()]):
        return getattr(tf_keras.layers, _SUMS[kind])()([*args, *kwargs.values()])
    values = (*args, *kwargs.values())
    given = [np.asarray(a, np.float32) if _is_array(a) else a for a in values]
    if kind in _POINTWISE:
        function = getattr(keras.activations, kind.lower().replace("hards", "hard_s"))
        return _ACTIVATIONS[function.__name__](operation.name)(given[0])
    return _OPERATORS[kind](operation, *given)


def _normalization(layer: Any, name: str) -> Any:
    mean, variance = (np.asarray(value, np.float32) for value in (layer.mean, layer.variance))
    axis = tuple(layer.axis) if layer.axis else None
    shape = tuple(mean.shape[a] for a in axis) if axis else ()
    return tf_keras.layers.Normalization(
        axis=axis, mean=mean.reshape(shape), variance=variance.reshape(shape),
        invert=layer.invert, name=name,
    )  # fmt: skip


def _is_kept(key: str) -> bool:
    return not key.endswith(_LEFT_OUT) and key not in ("dtype", "synchronized")


def _are_alike(values: list[Any]) -> bool:
    kind = type(tf_keras.Input((1,)))
    is_tensor = [isinstance(value, kind) for value in values]
    return all(is_tensor) and len({tuple(value.shape) for value in values}) == 1


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, tf.Tensor, keras.Variable))


def _refusal(layer: Any, why: str, instead: str) -> CopyError:
    return CopyError(
        f"layer {layer.name} ({type(layer).__name__}) cannot be copied to tf_keras: {why}; "
        f"{instead or 'build the network from standard Keras layers'}, or leave sparsity, "
        "clustering and qat out of the recipe"
    )
