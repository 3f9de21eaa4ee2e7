"""Parity gates: pure comparisons, and real files with planted faults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import zoo
from onnx import numpy_helper

from smidgen.export.errors import CandidateFailed, ConversionError
from smidgen.export.formats import to_onnx
from smidgen.export.formats.integer_onnx import to_onnx_int8
from smidgen.export.formats.parity import (
    BatchParity,
    ChildRunner,
    FakeRunner,
    FloatParity,
    IntegerParity,
    check_batches,
    check_float,
    check_integer,
    compare_batches,
    compare_float,
    compare_integer,
    require_parity,
)
from smidgen.export.formats.parity_worker import scores_of
from smidgen.export.formats.to_tflite import to_tflite_float32
from smidgen.export.graphs.deploy_graph import pixel_code
from smidgen.export.source import ChannelNormalization

NORMALIZATION = ChannelNormalization.of(127.0, 128.0)
PIXELS = zoo.pictures(14)


@dataclass(frozen=True)
class InProcess:
    """Runs files in this process."""

    def scores(self, model, model_format, pixels, batch):
        return scores_of(model_format, model, pixels, batch)


@pytest.fixture(scope="module")
def files():
    """The Keras model's answers, and its float32 files."""
    import keras

    network = zoo.network()
    inputs = (PIXELS.astype(np.float32) - 127) / 128
    reference = np.asarray(keras.ops.softmax(network(inputs, training=False)))
    core = to_onnx.to_onnx_core(network, NORMALIZATION)
    float_onnx = to_onnx.finish(to_onnx.with_float_entry(core, pixel_code(NORMALIZATION)))
    return reference, to_tflite_float32(network, NORMALIZATION), float_onnx


def test_figures_by_hand():
    expected = np.float32([[0.5, 0.5], [0.25, 0.75]])
    got = np.float32([[0.5, 0.5], [0.5, 0.5]])
    assert compare_float(expected, got) == FloatParity(2, 0.25, 0.125, 1e-4)
    assert compare_integer(expected, got) == IntegerParity(2, 0.5, 0.25)
    assert compare_batches(expected, [(1, expected), (2, got)]) == BatchParity((1, 2), 0.25)
    assert not compare_float(expected, got).is_equal
    assert compare_float(expected, expected + np.float32(9e-5)).is_equal
    assert not compare_float(expected, expected + np.float32(1.1e-4)).is_equal


def test_two_classes_with_the_top_score_are_both_right():
    stepped = np.float32([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]])
    exact = np.float32([[0.499, 0.501, 0.0], [0.25, 0.5, 0.25]])
    assert compare_integer(stepped, exact).same_top1 == 1.0
    assert compare_integer(stepped, exact[:, ::-1]).same_top1 == 1.0
    assert compare_integer(stepped, exact[:, [2, 0, 1]]).same_top1 == 0.0


def test_an_answer_that_is_no_number_never_passes():
    expected = np.float32([[0.5, 0.5]])
    got = np.float32([[0.5, np.nan]])
    assert not compare_float(expected, got).is_equal
    assert not compare_integer(expected, got).is_equal
    assert not compare_batches(expected, [(1, got)]).is_equal


def test_other_shapes_are_refused():
    with pytest.raises(ConversionError, match=r"shape \(1, 2\) cannot be compared with \(2, 2\)"):
        compare_float(np.zeros((2, 2), np.float32), np.zeros((1, 2), np.float32))
    with pytest.raises(ConversionError, match="at least one"):
        compare_integer(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))


def test_limits_of_integer_parity():
    assert IntegerParity(100, 0.98, 0.1).is_equal
    assert not IntegerParity(100, 0.97, 0.1).is_equal
    assert not IntegerParity(100, 1.0, 0.11).is_equal
    with pytest.raises(ConversionError, match=r"same top-1 for 97\.0% of 100 images"):
        require_parity(IntegerParity(100, 0.97, 0.1), "the int8 .onnx file")
    with pytest.raises(ConversionError, match=r"differs by up to 0\.2 in a probability"):
        require_parity(FloatParity(100, 0.2, 0.1), "the float32 .onnx file")
    require_parity(BatchParity((1, 2, 7), 1e-6), "the float32 .onnx file")


def test_float_files_equal_the_network(files):
    reference, tflite, float_onnx = files
    found = check_float(reference, tflite, "tflite", PIXELS, InProcess())
    assert found.is_equal
    assert 0 < found.mean_difference <= found.max_difference <= 3e-5
    found = check_float(reference, float_onnx, "onnx", PIXELS, InProcess())
    assert found.is_equal


def faulty(data: bytes, fault: str) -> bytes:
    """The ONNX file with one thing wrong in it."""
    model = onnx.load_from_string(data)
    if fault == "scale":
        pixel = next(x for x in model.graph.initializer if x.name == "pixel_scale")
        wrong = numpy_helper.to_array(pixel) * np.float32(1.01)
        pixel.CopyFrom(numpy_helper.from_array(wrong, pixel.name))
    elif fault == "colours":
        node = next(x for x in model.graph.node if x.op_type == "Conv")
        kernel = next(x for x in model.graph.initializer if x.name == node.input[1])
        turned = numpy_helper.to_array(kernel)[:, ::-1].copy()
        kernel.CopyFrom(numpy_helper.from_array(turned, kernel.name))
    elif fault == "padding":
        node = next(
            x
            for x in model.graph.node
            if x.op_type in ("Conv", "MaxPool")
            and any(a.name == "pads" and sum(a.ints) % 4 for a in x.attribute)
        )
        pads = next(a for a in node.attribute if a.name == "pads")
        pads.ints[:] = [*pads.ints[2:], *pads.ints[:2]]
    return model.SerializeToString()


@pytest.mark.parametrize("fault", ["scale", "colours"])
def test_planted_faults_are_caught(fault, files):
    reference, _, float_onnx = files
    assert check_float(reference, faulty(float_onnx, "none"), "onnx", PIXELS, InProcess()).is_equal
    found = check_float(reference, faulty(float_onnx, fault), "onnx", PIXELS, InProcess())
    assert not found.is_equal
    assert found.max_difference > 10 * found.tolerance


def test_both_int8_files_in_child_processes():
    """A wide, shallow network, in which single steps of rounding do not add up."""
    tflite = zoo.int8_file(shallow())
    good = to_onnx_int8(tflite)
    found = check_integer(tflite, good, PIXELS, ChildRunner())
    assert found.is_equal
    assert found.same_top1 == 1.0
    assert found.max_score_difference <= 0.02
    # planted faults
    for fault in ("colours", "padding", "scale"):
        model = onnx.load_from_string(good)
        plant(model, fault)
        bad = check_integer(tflite, model.SerializeToString(), PIXELS, InProcess())
        assert not bad.is_equal, fault
        assert bad.max_score_difference > 0.02, fault


def plant(model, fault):
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    node = next(x for x in model.graph.node if x.op_type == "Conv")
    if fault == "padding":
        pads = next(a for a in node.attribute if a.name == "pads")
        assert sum(pads.ints) > 0
        pads.ints[:] = [4, 4, 0, 0]
    elif fault == "colours":
        kernel = constants[node.input[1].removesuffix("_real")]
        turned = numpy_helper.to_array(kernel)[:, ::-1].copy()
        kernel.CopyFrom(numpy_helper.from_array(turned, kernel.name))
    else:
        dense = next(x for x in model.graph.node if x.op_type == "Gemm")
        scale = constants[dense.input[1].removesuffix("_real") + "_scale"]
        wrong = numpy_helper.to_array(scale) * np.float32(1.5)
        scale.CopyFrom(numpy_helper.from_array(wrong, scale.name))


def shallow():
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    image = keras.Input((zoo.SIDE, zoo.SIDE, 3), name="image")
    x = layers.Conv2D(16, 5, strides=4, padding="same", activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(5, name="logits")(x))
    zoo.enliven(model)
    return model


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_every_batch_gives_the_rows_of_batch_1(scheme, files):
    data = files[2] if scheme == "float32" else to_onnx_int8(zoo.int8_file(zoo.network()))
    found = check_batches(data, "onnx", -1, PIXELS, InProcess())
    assert found.batches == (1, 2, 7)
    assert found.is_equal


def test_rows_that_depend_on_the_batch_are_caught():
    rows = np.full((14, 2), 0.5, np.float32)
    runner = FakeRunner({size: rows + np.float32(1e-4 * size) for size in (1, 2, 7)})
    found = check_batches(b"", "onnx", -1, PIXELS, runner)
    assert found.max_difference == pytest.approx(6e-4, rel=1e-3)
    assert not found.is_equal
    assert check_batches(b"", "tflite", 1, PIXELS, runner).batches == (1,)


def test_a_file_that_does_not_run_is_a_failed_candidate():
    with pytest.raises(CandidateFailed, match=r"the \.onnx file failed in its own runtime"):
        ChildRunner().scores(b"no model", "onnx", PIXELS, 1)
