"""float16, weights-int8, dynamic and int16x8 files, and other ends: size, structure, answers."""

from __future__ import annotations

import collections

import litert
import numpy as np
import onnx
import pytest
import zoo
from onnx import numpy_helper

from smidgen.export.errors import ConversionError
from smidgen.export.formats import tflite_file, tflite_schemes, to_onnx
from smidgen.export.formats.onnx_weights import to_onnx_scheme
from smidgen.export.formats.tflite_ends import end_specs, with_ends
from smidgen.export.formats.tflite_graph import TfliteGraph
from smidgen.export.formats.tflite_weights import (
    CHANNEL_AXIS,
    quantize_channels,
    with_float16_weights,
    with_int8_weights,
)
from smidgen.export.formats.to_tflite import to_tflite_float32
from smidgen.export.graphs.deploy_graph import pixel_code
from smidgen.export.source import ChannelNormalization

NORMALIZATION = ChannelNormalization.of(127.0, 128.0)
PIXELS = zoo.pictures(24)
FLOAT_TOLERANCE = 3e-5
"""Largest difference of a probability."""

FLOAT16_TOLERANCE = 2e-3
WEIGHTS_TOLERANCE = 0.04
"""Mean differences of a probability: the small network has little signal."""

SMALLER = {"float16": (2, FLOAT16_TOLERANCE), "weights-int8": (4, WEIGHTS_TOLERANCE)}


@pytest.fixture(scope="module")
def network():
    return zoo.network()


@pytest.fixture(scope="module")
def reference(network):
    import keras

    inputs = (PIXELS.astype(np.float32) - 127) / 128
    return np.asarray(keras.ops.softmax(network(inputs, training=False)))


@pytest.fixture(scope="module")
def float_tflite(network):
    return to_tflite_float32(network, NORMALIZATION)


@pytest.fixture(scope="module")
def int8_tflite(network):
    return zoo.int8_file(network)


@pytest.fixture(scope="module")
def float_onnx(network):
    core = to_onnx.to_onnx_core(network, NORMALIZATION)
    return to_onnx.finish(to_onnx.with_float_entry(core, pixel_code(NORMALIZATION)))


@pytest.fixture(scope="module")
def float_files(float_onnx, float_tflite):
    return float_onnx, float_tflite


def kernel_bytes(data: bytes) -> int:
    """Bytes of the constants that are kernels, or that become kernels by DEQUANTIZE."""
    graph = TfliteGraph.read(data)
    found = {}
    for step in graph.operators:
        if step.kind in CHANNEL_AXIS:
            index = step.inputs[1]
            if index in graph.producers:
                index = graph.producers[index].inputs[0]
            found[index] = graph.tensors[index].data.nbytes
    return sum(found.values())


@pytest.mark.parametrize(
    ("shrink", "factor", "tolerance"),
    [(with_float16_weights, 2, FLOAT16_TOLERANCE), (with_int8_weights, 4, WEIGHTS_TOLERANCE)],
)
def test_smaller_tflite_weights(shrink, factor, tolerance, float_tflite, reference):
    data = shrink(float_tflite)
    assert data == shrink(float_tflite)
    assert kernel_bytes(data) * factor == kernel_bytes(float_tflite)
    spared = kernel_bytes(float_tflite) * (1 - 1 / factor)
    assert len(float_tflite) - len(data) > 0.5 * spared
    specs = end_specs(data)
    assert [(spec.dtype, spec.shape) for spec in specs] == [
        ("uint8", (1, 33, 33, 3)),
        ("float32", (1, 5)),
    ]
    differences = np.abs(litert.run_tflite(data, PIXELS) - reference)
    assert FLOAT_TOLERANCE < differences.mean() <= tolerance
    # planted fault: the last kernel twice as large
    model = tflite_file.read_model(data)
    graph = model.subgraphs[0]
    kinds = tflite_file.operators(model)
    kernels = [step for kind, step in zip(kinds, graph.operators) if kind == "DEQUANTIZE"]
    kernel = graph.tensors[kernels[-1].inputs[0]]
    if factor == 4:
        kernel.quantization.scale = kernel.quantization.scale * np.float32(2)
    else:
        buffer = model.buffers[kernel.buffer]
        wrong = np.frombuffer(buffer.data.tobytes(), np.float16) * np.float16(2)
        buffer.data = np.frombuffer(wrong.tobytes(), np.uint8)
    wrong_scores = litert.run_tflite(tflite_file.write_model(model), PIXELS)
    assert np.abs(wrong_scores - reference).mean() > tolerance


@pytest.mark.parametrize(
    ("shrink", "oldest"), [(with_float16_weights, "1.15.0"), (with_int8_weights, "2.7.0")]
)
def test_the_oldest_runtime_is_raised(shrink, oldest, float_tflite):
    before = tflite_file.minimum_runtime(tflite_file.read_model(float_tflite))
    after = tflite_file.minimum_runtime(tflite_file.read_model(shrink(float_tflite)))
    assert tuple(map(int, after.split("."))) == max(
        tuple(map(int, text.split("."))) for text in (before, oldest)
    )


def test_files_without_float_kernels_are_refused(int8_tflite):
    for shrink in (with_float16_weights, with_int8_weights):
        with pytest.raises(ConversionError, match="no float32 kernels"):
            shrink(int8_tflite)


def test_channels_are_quantized_by_their_largest_weight():
    weights = np.float32([[1.0, -2.0, 0.0], [0.5, 1.0, 0.0]])
    stored, scales = quantize_channels(weights, axis=1)
    np.testing.assert_allclose(scales, [1 / 127, 2 / 127, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(stored, [[127, -127, 0], [64, 64, 0]])
    with pytest.raises(ConversionError, match="not finite"):
        quantize_channels(np.float32([[np.nan]]), axis=0)


def test_float16_refuses_what_it_cannot_hold(float_tflite):
    model = tflite_file.read_model(float_tflite)
    graph = model.subgraphs[0]
    place = tflite_file.operators(model).index("CONV_2D")
    buffer = model.buffers[graph.tensors[graph.operators[place].inputs[1]].buffer]
    weights = np.frombuffer(buffer.data.tobytes(), np.float32).copy()
    weights[0] = 70_000
    buffer.data = np.frombuffer(weights.tobytes(), np.uint8)
    with pytest.raises(ConversionError, match="a weight of 70000, float16 holds up to 65504"):
        with_float16_weights(tflite_file.write_model(model))


def test_dynamic_range(network, reference, float_tflite):
    data = tflite_schemes.to_tflite_dynamic(network, NORMALIZATION)
    assert [spec.dtype for spec in end_specs(data)] == ["uint8", "float32"]
    assert len(data) < len(float_tflite)
    differences = np.abs(litert.run_tflite(data, PIXELS) - reference)
    assert FLOAT_TOLERANCE < differences.mean() <= WEIGHTS_TOLERANCE


def test_int16_activations():
    """Ten times nearer to the network than int8 activations are."""
    network, counted = zoo.network("relu"), []
    data = tflite_schemes.to_tflite_int16x8(network, NORMALIZATION, zoo.Pictures(), counted.append)
    assert sum(counted) == 24
    assert [spec.dtype for spec in end_specs(data)] == ["uint8", "float32"]
    kinds = collections.Counter(tensor.kind for tensor in TfliteGraph.read(data).tensors)
    assert kinds["INT16"] >= 15
    assert kinds["UINT8"] == 1
    # against the same kernels with float activations, so that activations alone are compared
    kernels = with_int8_weights(to_tflite_float32(network, NORMALIZATION))
    expected = litert.run_tflite(kernels, PIXELS)
    fine, coarse = (
        np.abs(litert.run_tflite(file, PIXELS) - expected).mean()
        for file in (data, zoo.int8_file(network))
    )
    assert fine < 0.1 * coarse


def test_int16_activations_without_a_kernel_are_refused(network):
    with pytest.raises(ConversionError, match="not yet supported for op: 'HARD_SWISH'"):
        tflite_schemes.to_tflite_int16x8(network, NORMALIZATION, zoo.Pictures(), lambda _: None)


def test_int8_ends_need_no_operators(int8_tflite):
    data = with_ends(int8_tflite, "int8")
    assert "QUANTIZE" not in tflite_file.operators(tflite_file.read_model(data))
    image, scores = end_specs(data)
    assert (image.dtype, image.scale, image.zero_point, image.high) == ("int8", 1.0, -128, 255.0)
    assert (scores.dtype, scores.scale, scores.zero_point) == ("int8", 1 / 256, -128)
    shifted = (PIXELS.astype(np.int16) - 128).astype(np.int8)
    want = litert.run_tflite(int8_tflite, PIXELS)
    np.testing.assert_array_equal(litert.run_tflite(data, shifted), want)
    # planted fault: pixels that are not shifted, but cast
    assert np.abs(litert.run_tflite(data, PIXELS.view(np.int8)) - want).max() > 0.1


def test_float_ends_take_whole_pixels(int8_tflite):
    data = with_ends(int8_tflite, "float32")
    steps = tflite_file.operators(tflite_file.read_model(data))
    assert (steps[0], steps[1], steps[-1]) == ("CAST", "QUANTIZE", "DEQUANTIZE")
    image, scores = end_specs(data)
    assert (image.dtype, image.low, image.high, scores.dtype) == ("float32", 0.0, 255.0, "float32")
    want = litert.run_tflite(int8_tflite, PIXELS)
    np.testing.assert_array_equal(litert.run_tflite(data, PIXELS.astype(np.float32)), want)
    normalised = (PIXELS.astype(np.float32) - 127) / 128
    assert np.abs(litert.run_tflite(data, normalised) - want).max() > 0.1


def test_uint8_ends_are_the_file_itself(int8_tflite, float_tflite):
    assert with_ends(int8_tflite, "uint8") is int8_tflite
    image, scores = end_specs(int8_tflite)
    assert (image.dtype, image.scale, image.zero_point) == ("uint8", 1.0, 0)
    assert (scores.dtype, scores.scale, scores.high) == ("uint8", 1 / 256, 255 / 256)
    with pytest.raises(ConversionError, match="expected uint8 ends behind QUANTIZE"):
        with_ends(float_tflite, "int8")


@pytest.mark.parametrize("scheme", SMALLER)
def test_smaller_onnx_weights(scheme, float_files, reference, tmp_path):
    float_onnx, float_tflite = float_files
    factor, tolerance = SMALLER[scheme]
    data = to_onnx_scheme(float_onnx, scheme)
    assert data == to_onnx_scheme(float_onnx, scheme)
    stored = [
        numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(data).graph.initializer
    ]
    kernels = [array for array in stored if array.dtype != np.float32 and array.ndim > 1]
    small = with_float16_weights(float_tflite) if factor == 2 else with_int8_weights(float_tflite)
    assert sum(array.nbytes for array in kernels) == kernel_bytes(small)
    path = tmp_path / "optimized.onnx"
    litert.session(data, str(path))
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Cast") == 1, "only pixels are cast when it runs: kernels when it is loaded"
    assert "DequantizeLinear" not in kinds
    differences = np.abs(litert.run_onnx(data, PIXELS) - reference)
    assert FLOAT_TOLERANCE < differences.mean() <= tolerance
    # the same integers, or halves, as the TFLite file: the same answers but for float rounding
    same = litert.run_tflite(small, PIXELS)
    assert np.abs(litert.run_onnx(data, PIXELS) - same).max() <= FLOAT_TOLERANCE


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("dynamic", "about 6 times slower than float32: export int8, or weights-int8"),
        ("int16x8", "no kernels for int16 activations with int8 weights: export int8"),
        ("int8", "written from the int8 TFLite file"),
    ],
)
def test_other_onnx_schemes_are_refused(scheme, reason, float_onnx):
    with pytest.raises(ConversionError, match=reason):
        to_onnx_scheme(float_onnx, scheme)


def test_the_float32_onnx_file_is_kept(float_onnx, int8_tflite):
    assert to_onnx_scheme(float_onnx, "float32") is float_onnx
    assert int8_tflite
