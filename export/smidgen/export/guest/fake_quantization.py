"""Layers that compute with the numbers that int8 files have, by tfmot's wrapper.

tfmot's own scheme is not used: its ranges start at -6..6, its depthwise kernels get one scale for
all channels, it refuses what has a squeeze-excite, and it undoes clusters by training their values
for each channel. Here a kernel is rounded with a scale for each output channel from its present
weights, and an activation with the code that it has in the post-training int8 file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.guest.layers import OWN_FUNCTIONS
from smidgen.export.guest.room import tf_keras, tfmot
from smidgen.export.guest.structure import values_of
from smidgen.export.quantization.numbers import Code
from smidgen.export.tensorflow_backend import captured_output, tf

_KERNELS = {
    "Conv2D": ("kernel",),
    "Dense": ("kernel",),
    "DepthwiseConv2D": ("depthwise_kernel",),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel"),
}
_SMALLEST = 1e-8
_KIND = tfmot.quantization.keras
_Quantizer: Any = _KIND.quantizers.Quantizer
_QuantizeConfig: Any = _KIND.QuantizeConfig


def fake_quantized(
    model: Any, codes: Mapping[str, Code], clustered: frozenset[str], *, is_sparse: bool
) -> Any:
    """The tf_keras network ``model`` with kernels and activations rounded to int8 codes.

    Args:
        model: functional, flat; it is not changed.
        codes: of the outputs of layers, by their names.
        clustered: layers whose kernels keep to the distinct weights that they have.
        is_sparse: zeros of all kernels stay.
    """

    def twin(layer: Any) -> Any:
        new = type(layer).from_config(layer.get_config())
        kernels = _KERNELS.get(type(layer).__name__, ())
        if layer.weights:  # the wrapper looks at the weights when it is built
            new.build(layer.input_shape)
            new.set_weights(layer.get_weights())
        code = codes.get(layer.name)
        if isinstance(layer, tf_keras.layers.InputLayer) or not (kernels or code):
            return new
        keeps = layer.name in clustered
        config = _Config(kernels, _Rounding(keeps_values=keeps, keeps_zeros=is_sparse), code)
        return _KIND.QuantizeWrapperV2(new, config)

    with tf_keras.utils.custom_object_scope(OWN_FUNCTIONS), captured_output():
        return tf_keras.models.clone_model(model, clone_function=twin)


def trained_weights(layer: Any) -> list[NDArray[np.float32]]:
    """The weights of a layer of ``fake_quantized``: zeros and clusters kept, not rounded to int8.

    In the order of ``get_weights`` of the layer inside.
    """
    if not isinstance(layer, tf_keras.layers.Wrapper):
        return list(layer.get_weights())
    if not layer._weight_vars:
        return list(layer.layer.get_weights())
    kernels = [
        np.asarray(quantizer.structured(variable, state))
        for variable, quantizer, state in layer._weight_vars
    ]
    return [*kernels, np.asarray(layer.layer.bias)] if layer.layer.use_bias else kernels


class _Rounding(_Quantizer):  # type: ignore[misc]
    """Kernels to codes -127..127 with a scale for each output channel."""

    def __init__(self, *, keeps_values: bool, keeps_zeros: bool) -> None:
        self._keeps_values, self._keeps_zeros = keeps_values, keeps_zeros

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:  # noqa: ARG002
        """What is kept of the kernel as it is now."""
        kernel = np.asarray(getattr(layer.layer, name))
        state: dict[str, Any] = {"is_depthwise": name == "depthwise_kernel"}
        if self._keeps_zeros:
            state["mask"] = tf.constant(kernel != 0, tf.float32)
        if self._keeps_values:
            state["values"] = tf.constant(values_of(kernel), tf.float32)
        return state

    def structured(self, kernel: Any, state: dict[str, Any]) -> Any:
        """The kernel with its zeros and clusters; gradients pass as if nothing was done to it."""
        if "values" in state:
            values = state["values"]
            middles = (values[1:] + values[:-1]) / 2
            near = tf.gather(values, tf.searchsorted(middles, tf.reshape(kernel, [-1])))
            kernel = kernel + tf.stop_gradient(tf.reshape(near, kernel.shape) - kernel)
        return kernel * state["mask"] if "mask" in state else kernel

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """The rounded kernel."""
        kernel = self.structured(inputs, weights)
        shape = kernel.shape
        channels = shape[-1] * shape[-2] if weights["is_depthwise"] else shape[-1]
        rows = tf.reshape(kernel, [-1, channels])
        largest = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(rows), axis=0), _SMALLEST))
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            rows, -largest, largest, narrow_range=True
        )
        return tf.reshape(rounded, shape)

    def get_config(self) -> dict[str, Any]:
        """What it was made with."""
        return {"keeps_values": self._keeps_values, "keeps_zeros": self._keeps_zeros}


class _Config(_QuantizeConfig):  # type: ignore[misc]
    """What tfmot's wrapper asks: which kernels are rounded how, and the output's code."""

    def __init__(self, kernels: tuple[str, ...], rounding: _Rounding, code: Code | None) -> None:
        self._kernels, self._rounding, self._code = kernels, rounding, code

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """See tfmot."""
        return [(getattr(layer, name), self._rounding) for name in self._kernels]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:  # noqa: ARG002
        """See tfmot."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        """See tfmot."""
        for name, weight in zip(self._kernels, quantize_weights, strict=True):
            setattr(layer, name, weight)

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        """See tfmot."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
        """See tfmot."""
        if self._code is None:
            return []
        low, high = self._code.range
        return [_KIND.quantizers.FixedQuantizer(8, low, high, narrow_range=False)]

    def get_config(self) -> dict[str, Any]:
        """Not kept: the network is not saved."""
        return {}
