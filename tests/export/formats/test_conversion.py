"""The four model files of a small network: equal answers, clean graphs, pixels as they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from smidgen.export.errors import ConversionError, FoldError
from smidgen.export.formats.conversion import Converter, _check_fold
from smidgen.export.formats.tflite_file import metadata_entries, operators, read_model, write_model
from smidgen.export.formats.to_onnx import finish
from smidgen.export.formats.to_tflite import check_int8
from smidgen.export.gate.judge import reference_scores
from smidgen.export.graphs.deploy_graph import PixelCode, pixel_code
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.pictures import pixel_batches
from smidgen.export.recipe import ExportPlan, QuantizationRecipe
from smidgen.export.source import ChannelNormalization
from smidgen.train.progress import SilentProgress

PER_CHANNEL = ChannelNormalization.of((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


U8 = ExportPlan(quantization=QuantizationRecipe(onnx_activations="u8"))
"""Not measured: that takes 21 processes."""


@pytest.fixture(scope="module")
def converter(float_model, tmp_path_factory):
    passes = tmp_path_factory.mktemp("passes")
    return Converter(float_model, U8, passes, SilentProgress(), {})


@pytest.fixture(scope="module")
def files(converter):
    pairs = [(form, scheme) for form in ("tflite", "onnx") for scheme in ("float32", "int8")]
    return {pair: converter.convert(*pair).data for pair in pairs}


@pytest.fixture(scope="module")
def pixels(float_model):
    return np.concatenate(list(pixel_batches(float_model.held_out, float_model.preprocessing, 16)))


@pytest.fixture(scope="module")
def reference(float_model):
    return reference_scores(
        float_model.load(),
        float_model.normalization,
        float_model.preprocessing,
        float_model.held_out,
        lambda _: None,
    )


def run_tflite(data: bytes, pixels: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for row in pixels:
        interpreter.set_tensor(entry["index"], row[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(end["index"])[0])
    scores = np.stack(rows)
    return scores / 256 if scores.dtype == np.uint8 else scores


def run_onnx(data: bytes, pixels: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(data).run(None, {"image": pixels})[0]


RUN = {"tflite": run_tflite, "onnx": run_onnx}


def test_the_small_network_gives_varied_answers(reference):
    assert len(set(reference.argmax(axis=1))) >= 3


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_float_files_equal_the_float_model(form, files, pixels, reference):
    scores = RUN[form](files[form, "float32"], pixels)
    assert np.abs(scores - reference).max() <= 3e-5
    # planted fault: other pixels
    assert np.abs(RUN[form](files[form, "float32"], 255 - pixels) - reference).max() > 1e-2


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_int8_files_are_near_the_float_model(form, files, pixels, reference):
    scores = RUN[form](files[form, "int8"], pixels)
    assert np.abs(scores - reference).mean() <= 0.03
    assert (scores.argmax(axis=1) == reference.argmax(axis=1)).mean() >= 0.9
    assert np.abs(scores - reference).max() > 0  # it is quantized


def test_int8_tflite_is_integer_from_end_to_end(files, float_model):
    model = read_model(files["tflite", "int8"])
    steps = operators(model)
    assert (steps[0], steps[-1]) == ("QUANTIZE", "QUANTIZE")
    assert set(steps) == {
        "QUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX",
    }  # fmt: skip
    code = pixel_code(float_model.normalization)
    assert code == PixelCode(scale=1 / 128, zero_point=127)
    check_int8(model, code)
    # planted faults: another normalisation, and an arithmetic step at the input
    with pytest.raises(ConversionError, match="takes pixels as"):
        check_int8(model, PixelCode(scale=1 / 128, zero_point=128))
    graph = model.subgraphs[0]
    inner = graph.tensors[graph.operators[0].outputs[0]]
    inner.quantization.scale = inner.quantization.scale * 1.01
    with pytest.raises(ConversionError, match="pure zero-point shift"):
        check_int8(model, code)


def test_float_tflite_is_clean(files):
    model = read_model(files["tflite", "float32"])
    assert operators(model)[0] == "CAST"
    assert "TRANSPOSE" not in operators(model)
    graph = model.subgraphs[0]
    assert graph.tensors[graph.inputs[0]].name == b"image"
    assert graph.tensors[graph.outputs[0]].name == b"probabilities"
    assert list(metadata_entries(model)) == ["min_runtime_version"]


def test_tflite_buffers_are_aligned(files):
    data = files["tflite", "float32"]
    model = read_model(data)
    sizes = [len(buffer.data) for buffer in model.buffers if buffer.data is not None]
    biggest = next(
        b.data.tobytes() for b in model.buffers if b.data is not None and len(b.data) == max(sizes)
    )
    assert data.index(biggest) % 16 == 0
    assert write_model(model) == write_model(read_model(data))


def test_a_file_without_weights_is_refused(float_model):
    from smidgen.export.formats.to_tflite import _check_size

    class Empty:
        buffers = ()

    with pytest.raises(ConversionError, match="lost or repeated"):
        _check_size(Empty, 1_000_000, bytes_per_weight=4)
    assert float_model.load().count_params() > 0


def test_onnx_files_are_clean(files):
    for scheme in ("float32", "int8"):
        model = onnx.load_from_string(files["onnx", scheme])
        onnx.checker.check_model(model, full_check=True)
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count("Transpose") == 1
        assert "BatchNormalization" not in kinds
        assert (model.ir_version, model.opset_import[0].version) == (7, 13)
        shape = model.graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 32, 32, 3]
    assert kinds[1] == "DequantizeLinear"  # pixels are the quantized input


def test_a_second_transpose_is_refused(files):
    model = onnx.load_from_string(files["onnx", "float32"])
    extra = onnx.helper.make_node("Transpose", ["bytes"], ["again"], "second", perm=[0, 2, 3, 1])
    model.graph.node.insert(1, extra)
    with pytest.raises(ConversionError, match="transposes 2 times"):
        finish(model)


@pytest.mark.parametrize("normalization", [PER_CHANNEL, ChannelNormalization.of(127.5, 127.5)])
def test_normalisation_that_is_no_pixel_code_is_part_of_the_graph(
    normalization, float_model, pixels, tmp_path
):
    source = dataclasses.replace(float_model, normalization=normalization)
    assert pixel_code(normalization) == PixelCode(1.0, 0)
    converter = Converter(source, U8, tmp_path, SilentProgress(), {})
    reference = reference_scores(
        source.load(), normalization, source.preprocessing, source.held_out, lambda _: None
    )
    for form in ("tflite", "onnx"):
        exact = RUN[form](converter.convert(form, "float32").data, pixels)
        assert np.abs(exact - reference).max() <= 3e-5
        near = RUN[form](converter.convert(form, "int8").data, pixels)
        assert np.abs(near - reference).mean() <= 0.03


def test_a_fold_that_changes_the_answers_is_refused(small_network):
    """The tolerance is for rounding in deep networks; one variance forgotten is far beyond it."""
    model, wrong = small_network(), small_network()
    _check_fold(model, fold_batch_norms(model).model)
    norm = next(x for x in wrong.layers if type(x).__name__ == "BatchNormalization")
    norm.moving_variance.assign(norm.moving_variance * 1.01)
    with pytest.raises(FoldError, match="changed the outputs by"):
        _check_fold(model, wrong)
