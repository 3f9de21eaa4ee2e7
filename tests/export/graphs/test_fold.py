"""BatchNorm folding: equal outputs, nothing left, and a clear answer where it cannot be done."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from smidgen.export.errors import FoldError
from smidgen.export.graphs.fold import fold_batch_norms


def test_folded_network_has_equal_outputs_and_no_norms(small_network):
    model = small_network()
    folded = fold_batch_norms(model)
    pixels = np.random.default_rng(1).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(model(pixels, training=False))
    got = np.asarray(folded.model(pixels, training=False))
    assert np.abs(expected - got).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert (folded.folded, folded.kept) == (6, ())
    names = {type(layer).__name__ for layer in folded.model.layers}
    assert not names & {"BatchNormalization", "Dropout"}
    # planted fault: a bias of the first convolution forgotten
    first = next(layer for layer in folded.model.layers if isinstance(layer, keras.layers.Conv2D))
    kernel, bias = first.get_weights()
    first.set_weights([kernel, np.zeros_like(bias)])
    assert np.abs(expected - np.asarray(folded.model(pixels, training=False))).max() > 1e-3


def test_norms_that_cannot_be_folded_stay_and_say_why():
    image = keras.Input((8, 8, 3))
    first = keras.layers.BatchNormalization(name="at_input")(image)
    conv = keras.layers.Conv2D(4, 3, name="shared")(first)
    normed = keras.layers.BatchNormalization(name="beside")(conv)
    active = keras.layers.Conv2D(4, 1, activation="relu", name="active")(normed)
    last = keras.layers.BatchNormalization(name="after_relu")(active)
    model = keras.Model(image, keras.layers.Add()([last, conv]))
    folded = fold_batch_norms(model)
    assert folded.folded == 0
    assert [line.split(":")[0] for line in folded.kept] == ["at_input", "beside", "after_relu"]
    assert "shared is used elsewhere" in folded.kept[1]
    pixels = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected, got = model(pixels, training=False), folded.model(pixels, training=False)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_subclassed_model_is_refused():
    class Other(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(FoldError, match="not a functional Keras model"):
        fold_batch_norms(Other())


@pytest.mark.parametrize("use_bias", [False, True])
def test_a_separable_convolution_takes_its_norm_into_the_second_kernel(use_bias):
    random = np.random.default_rng(2)
    image = keras.Input((8, 8, 3))
    conv = keras.layers.SeparableConv2D(4, 3, use_bias=use_bias, name="conv")(image)
    norm = keras.layers.BatchNormalization(name="norm")(conv)
    model = keras.Model(image, norm)
    for name in ("conv", "norm"):
        layer = model.get_layer(name)
        layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    folded = fold_batch_norms(model)
    assert (folded.folded, folded.kept) == (1, ())
    pixels = random.normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(np.asarray(folded.model(pixels)), expected, rtol=1e-5, atol=1e-5)
    first = model.get_layer("conv").get_weights()[0]
    np.testing.assert_array_equal(folded.model.get_layer("conv").get_weights()[0], first)
