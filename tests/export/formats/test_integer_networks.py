"""int8 ONNX of real networks equals the int8 TFLite file it is written from."""

from __future__ import annotations

import collections
from pathlib import Path

import litert
import numpy as np
import onnx
import pytest

from smidgen.export.formats.integer_onnx import to_onnx_int8
from smidgen.export.formats.parity import compare_integer
from smidgen.export.formats.to_tflite import to_tflite_int8
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.source import ChannelNormalization
from smidgen.train.models.facts import normalization_of
from smidgen.train.models.network import build
from smidgen.train.recipe import ModelRecipe

pytestmark = pytest.mark.slow

IMAGES = Path(__file__).resolve().parents[4] / "shared" / "data" / "imagenet500"
NETWORKS = {
    "efficientnet-b0": ModelRecipe(backbone="efficientnet-b0", weights="none"),
    "mobilenet-v3-small, mlp": ModelRecipe(
        backbone="mobilenet-v3-small", head="mlp", weights="none"
    ),
}


class Pixels:
    """Calibration by given pixels, two of which are 0 and 255."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels.astype(np.uint8)
        self._pixels[0, 0, 0], self._pixels[0, -1, -1] = 0, 255

    def pixels(self):
        return (row[np.newaxis] for row in self._pixels)


def kernels(data: bytes, folder: Path) -> collections.Counter[str]:
    path = folder / "optimized.onnx"
    litert.session(data, str(path))
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_networks(name, enliven, patches, tmp_path):
    """Rounding adds up in deep random networks, so the mean is compared; and every operator is an
    integer kernel but HARD_SWISH."""
    model, side = NETWORKS[name], 64
    network = build(model, 4, side)
    pixels = patches(8, side)
    how = normalization_of(model)
    enliven(network, (pixels - np.float32(how.mean)) / np.float32(how.std))
    normalization = ChannelNormalization.of(how.mean, how.std)
    folded = fold_batch_norms(network).model
    tflite = to_tflite_int8(folded, normalization, Pixels(pixels), lambda _: None)
    data = to_onnx_int8(tflite)
    found = kernels(data, tmp_path)
    assert found["Conv"] == found["Gemm"] == found["Add"] == 0
    assert found["Mul"] == found["HardSigmoid"]
    assert found["Transpose"] <= 2
    rows = pixels.astype(np.uint8)
    expected, got = litert.run_tflite(tflite, rows), litert.run_onnx(data, rows)
    assert np.abs(got - expected).mean() <= 0.15
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.5


def test_the_pretrained_network_answers_the_same():
    if not IMAGES.is_dir():
        pytest.skip("shared/data/imagenet500 is not beside the repository")
    from smidgen.export.pictures import pixel_batches
    from smidgen.export.source import from_pretrained

    source = from_pretrained("efficientnet-lite0", images=str(IMAGES))
    pictures = [*source.calibration_pool[:16], *source.held_out[:48]]
    pixels = np.concatenate(list(pixel_batches(pictures, source.preprocessing, 16)))
    folded = fold_batch_norms(source.load()).model
    tflite = to_tflite_int8(folded, source.normalization, Pixels(pixels[:16]), lambda _: None)
    data = to_onnx_int8(tflite)
    held = pixels[16:]
    expected = litert.run_tflite(tflite, held)
    found = compare_integer(expected, litert.run_onnx(data, held))
    assert found.is_equal
    assert found.same_top1 >= 0.98
    assert found.max_score_difference <= 0.03
    # planted fault: blue where red is expected
    assert not compare_integer(expected, litert.run_onnx(data, held[..., ::-1].copy())).is_equal
