"""Every family of backbones, two of them together, and each head become float32 files."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from smidgen.export.formats.conversion import Converter
from smidgen.export.recipe import ExportPlan
from smidgen.export.source import ChannelNormalization, FloatModel
from smidgen.runtime.manifest import Preprocessing
from smidgen.train.models.backbones import BACKBONES
from smidgen.train.models.facts import backbones_of, normalization_of
from smidgen.train.progress import SilentProgress
from smidgen.train.recipe import ModelRecipe

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3
"""Of a probability: rounding, which the small differences of random networks blow up."""

CLASSES = ("ash", "beech", "cedar", "date palm")
MODELS = {
    "efficientnet-b0": ModelRecipe(backbone="efficientnet-b0"),
    "efficientnetv2-b0": ModelRecipe(backbone="efficientnetv2-b0"),
    "resnet50": ModelRecipe(backbone="resnet50"),
    "vgg16": ModelRecipe(backbone="vgg16"),
    "inception-v3": ModelRecipe(backbone="inception-v3"),
    "xception": ModelRecipe(backbone="xception"),
    "mobilenet-v2, dropout-mlp": ModelRecipe(backbone="mobilenet-v2", head="dropout-mlp"),
    "mobilenet-v3-small, mlp": ModelRecipe(backbone="mobilenet-v3-small", head="mlp"),
    "two": ModelRecipe(backbone="mobilenet-v2", ensemble=("efficientnet-lite0",)),
}


def source_of(model: ModelRecipe, network: Any) -> FloatModel:
    side = network.input_shape[1]
    how = normalization_of(model)
    return FloatModel(
        name="toy",
        source="toy run",
        backbone=model.backbone,
        labels=CLASSES,
        preprocessing=Preprocessing(width=side, height=side),
        normalization=ChannelNormalization.of(how.mean, how.std),
        load=lambda: network,
        weights_sha256="1" * 64,
        data_sha256="2" * 64,
    )


@pytest.mark.parametrize("name", MODELS)
def test_float32_files_equal_the_network(name, enliven, patches, tmp_path):
    from smidgen.export.tensorflow_backend import keras
    from smidgen.train.models.network import build

    model = ModelRecipe(**{**vars(MODELS[name]), "weights": "none"})
    side = max(BACKBONES[one].smallest_image_size for one in backbones_of(model)) + 32
    network = build(model, len(CLASSES), side)
    pixels = patches(8, side)
    how = normalization_of(model)
    inputs = (pixels - np.float32(how.mean)) / np.float32(how.std)
    answers = enliven(network, inputs)
    kernel, bias = network.get_layer("logits").get_weights()
    scale = 1 / answers.std(axis=0).mean()
    network.get_layer("logits").set_weights([kernel * scale, (bias - answers.mean(axis=0)) * scale])
    expected = np.asarray(keras.ops.softmax(network(inputs, training=False)))
    assert np.ptp(expected, axis=0).max() > 0.1

    converter = Converter(source_of(model, network), ExportPlan(), tmp_path, SilentProgress(), {})
    onnx = onnxruntime.InferenceSession(converter.convert("onnx", "float32").data)
    got = onnx.run(None, {"image": pixels.astype(np.uint8)})[0]
    assert np.abs(got - expected).max() <= TOLERANCE
    tflite = Interpreter(model_content=converter.convert("tflite", "float32").data)
    tflite.allocate_tensors()
    for row, answer in zip(pixels.astype(np.uint8), expected, strict=True):
        tflite.set_tensor(tflite.get_input_details()[0]["index"], row[np.newaxis])
        tflite.invoke()
        found = tflite.get_tensor(tflite.get_output_details()[0]["index"])[0]
        assert np.abs(found - answer).max() <= TOLERANCE
    shifted = onnx.run(None, {"image": np.roll(pixels, 1, axis=-1).astype(np.uint8)})[0]
    assert np.abs(shifted - expected).max() > TOLERANCE, "colours out of place would be seen"
