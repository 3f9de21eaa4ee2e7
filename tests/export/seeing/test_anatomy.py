"""Operators and memory, looked up from layers, against what the converter makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("smidgen.export.tensorflow_backend").keras
layers = keras.layers

from smidgen.export.formats import tflite_file  # noqa: E402
from smidgen.export.graphs.deploy_graph import quantizable_graph  # noqa: E402
from smidgen.export.graphs.fold import fold_batch_norms  # noqa: E402
from smidgen.export.seeing.anatomy import Anatomy, anatomy_of  # noqa: E402
from smidgen.export.source import ChannelNormalization  # noqa: E402
from smidgen.export.tensorflow_backend import captured_output, tf  # noqa: E402

Build = Callable[[Any], Any]


def network(body: Build, size: int = 8) -> Any:
    """Pixels, ``body``, pooling, three logits."""
    image = keras.Input((size, size, 3), name="image")
    pooled = layers.GlobalAveragePooling2D()(body(image))
    return keras.Model(image, layers.Dense(3, name="logits")(pooled))


def converted_operators(model: Any) -> Counter[str]:
    """What the converter's int8 file of a folded network holds."""
    graph = quantizable_graph(model, ChannelNormalization.of(127.0, 128.0), batch=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(graph)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    random = np.random.default_rng(0)
    shape = (1, *model.input.shape[1:])
    images = [[random.uniform(-1, 1, shape).astype(np.float32)] for _ in range(2)]
    converter.representative_dataset = lambda: iter(images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    with captured_output():
        data = converter.convert()
    return Counter(tflite_file.operators(tflite_file.read_model(data)))


def gated(x: Any, *, hard: bool) -> Any:
    """A squeeze-and-excite block in the manner of EfficientNet, or of MobileNetV3."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=hard)(x)
    if not hard:
        gate = layers.Reshape((1, 1, channels))(gate)
    gate = layers.Conv2D(4, 1, activation="relu" if hard else "silu")(gate)
    gate = layers.Conv2D(channels, 1, activation="linear" if hard else "sigmoid")(gate)
    if hard:
        gate = layers.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)
    return layers.Multiply(name="gate")([x, gate])


def normed(x: Any, filters: int, activation: str | None, stride: int = 1) -> Any:
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return x if activation is None else layers.Activation(activation)(x)


def residual(image: Any) -> Any:
    x = normed(image, 8, "relu6", 2)
    return layers.Add()([x, normed(x, 8, None)])


def mobile(image: Any) -> Any:
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(normed(image, 8, "hard_silu"))
    x = layers.DepthwiseConv2D(3, strides=2, padding="valid")(x)
    return gated(layers.ReLU()(x), hard=True)


def branching(image: Any) -> Any:
    x = normed(image, 8, "relu")
    pooled = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    wide = layers.SeparableConv2D(6, 3, padding="same", activation="relu")(x)
    return layers.MaxPooling2D()(layers.Concatenate()([pooled, wide]))


@pytest.mark.parametrize(
    "body", [residual, lambda x: gated(normed(x, 8, "silu"), hard=False), mobile, branching]
)
def test_the_operators_are_those_that_the_converter_makes(body: Build) -> None:
    model = fold_batch_norms(network(body)).model
    assert anatomy_of(model).counts == dict(converted_operators(model))


def test_another_network_has_other_operators() -> None:
    """The comparison above can fail."""
    one = anatomy_of(fold_batch_norms(network(residual)).model)
    assert one.counts != dict(converted_operators(fold_batch_norms(network(mobile)).model))


def test_parts_that_hurt_are_found() -> None:
    soft = anatomy_of(network(lambda x: gated(normed(x, 8, "silu"), hard=False)))
    assert (len(soft.squeeze_excite), len(soft.swish), len(soft.hard_swish)) == (1, 2, 0)
    assert soft.squeeze_excite == ("gate",)
    hard = anatomy_of(fold_batch_norms(network(mobile)).model)
    assert (len(hard.squeeze_excite), len(hard.swish), len(hard.hard_swish)) == (1, 0, 1)
    plain = anatomy_of(fold_batch_norms(network(residual)).model)
    assert not (plain.squeeze_excite or plain.swish or plain.hard_swish or plain.lone_batch_norms)


def test_a_product_of_two_branches_is_no_squeeze_excite() -> None:
    both = network(lambda x: layers.Multiply()([normed(x, 4, "relu"), normed(x, 4, "relu")]))
    assert anatomy_of(both).squeeze_excite == ()


def test_a_lone_batch_norm_is_named() -> None:
    model = fold_batch_norms(network(layers.BatchNormalization(name="lone"))).model
    assert anatomy_of(model).lone_batch_norms == ("lone",)


def test_an_unknown_layer_is_named() -> None:
    strange = anatomy_of(network(layers.UnitNormalization(name="unit")))
    assert strange.unknown == ("unit (UnitNormalization)",)
    mish = anatomy_of(network(layers.Conv2D(4, 1, activation="mish", name="c")))
    assert mish.unknown == ("c (mish)",)


def peak(body: Build) -> int:
    found: Anatomy = anatomy_of(fold_batch_norms(network(body)).model)
    return found.peak_numbers


def test_the_peak_is_counted_by_hand() -> None:
    # 8 x 8 x 3 pixels twice: as uint8, and shifted; then into 8 x 8 x 4
    assert peak(lambda x: normed(x, 1, "relu6")) == 2 * 8 * 8 * 3
    assert peak(lambda x: normed(x, 4, "relu6")) == 8 * 8 * 3 + 8 * 8 * 4
    # swish: what goes into the sigmoid, the sigmoid, and their product
    assert peak(lambda x: normed(x, 4, "silu")) == 3 * 8 * 8 * 4


def test_a_shortcut_keeps_its_tensor() -> None:
    def straight(x: Any) -> Any:
        for _ in range(3):
            x = normed(x, 16, "relu6")
        return x

    def shortcut(x: Any) -> Any:
        x = normed(x, 16, "relu6")
        return layers.Add()([x, normed(normed(x, 16, "relu6"), 16, None)])

    assert peak(straight) == 2 * 8 * 8 * 16
    assert peak(shortcut) == 3 * 8 * 8 * 16
