"""The small network's int8 files: nearer to the float model than the converter's, and exact codes.

Faults are planted: a broken scale, calibration on noise, a bias left uncorrected.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from smidgen.export.errors import ConversionError, PairingError
from smidgen.export.formats.tflite_file import operators, read_model, write_model
from smidgen.export.formats.to_tflite import check_int8
from smidgen.export.graphs.deploy_graph import pixel_code
from smidgen.export.quantization.activations import Probe
from smidgen.export.quantization.mixed_precision import positions_of, with_float_layers
from smidgen.export.quantization.noise import layer_signal_to_noise
from smidgen.export.quantization.numbers import code_of, shared_codes
from smidgen.export.quantization.pairing import constant, pair_up
from smidgen.export.quantization.quantizer import decoded, quantize, set_numbers
from smidgen.export.quantization.sensitivity import (
    float_logits,
    graph_sensitivity,
    logit_error,
    sensitivity,
    worst_layers,
)
from smidgen.export.recipe import QuantizationRecipe

PLAIN = QuantizationRecipe(calibrator="min-max", equalize=False, bias_correction=False)


@pytest.fixture(scope="module")
def images(calibration, float_model):
    """Decoded calibration images, anew at each call."""
    code = pixel_code(float_model.normalization)
    return lambda: decoded(calibration, code)


@pytest.fixture(scope="module")
def pixels(held_out):
    return [row[np.newaxis] for row in held_out]


def numbered(twins, images, settings):
    graph = pair_up(*map(read_model, twins))
    facts = set_numbers(graph, images, settings, lambda _: None)
    return graph, facts


def error_of(graph, pixels, model=None):
    expected = float_logits(graph, pixels)
    return logit_error(graph, model or graph.integer_model, pixels, expected)


@pytest.fixture(scope="module")
def ours(twins, images):
    return numbered(twins, images, QuantizationRecipe())[0]


@pytest.mark.parametrize("calibrator", ["min-max", "percentile", "entropy", "mse"])
def test_every_calibrator_makes_a_valid_file(calibrator, twins, images, pixels, float_model):
    settings = QuantizationRecipe(calibrator=calibrator)
    graph, facts = numbered(twins, images, settings)
    assert (facts["quantizer"], facts["calibrator"]) == ("smidgen", calibrator)
    check_int8(graph.integer_model, pixel_code(float_model.normalization))
    expected = float_logits(graph, pixels)
    assert error_of(graph, pixels) < 0.25 * expected.std()


def test_it_is_nearer_to_the_float_model_than_plain_numbers(twins, images, pixels, ours):
    plain, _ = numbered(twins, images, PLAIN)
    assert error_of(ours, pixels) < 0.9 * error_of(plain, pixels)


def test_numbers_obey_the_specification(ours):
    for pair in ours.pairs:
        if not pair.is_weighted:
            continue
        operator = pair.integer_operator
        kernel = ours.integer_tensor(int(operator.inputs[1])).quantization
        bias = ours.integer_tensor(int(operator.inputs[2])).quantization
        codes = constant(ours.integer_model, int(operator.inputs[1]))
        assert np.abs(codes.astype(int)).max() <= 127
        assert not kernel.zeroPoint.any() and not bias.zeroPoint.any()
        entry = code_of(ours, int(operator.inputs[0])).scale
        assert bias.scale == pytest.approx(entry * kernel.scale, rel=1e-6)
    assert len(shared_codes(ours)) == len(ours.pairs) - 1  # the softmax's code is fixed


def test_one_scale_for_each_kernel(twins, images, pixels, ours):
    graph, _ = numbered(twins, images, QuantizationRecipe(weight_scales="per-tensor"))
    scales = [
        len(graph.integer_tensor(int(pair.integer_operator.inputs[1])).quantization.scale)
        for pair in graph.pairs
        if pair.is_weighted
    ]
    assert set(scales) == {1}
    assert error_of(ours, pixels) < error_of(graph, pixels) < 1.0


def test_equal_input_equal_bytes(twins, images, ours):
    again, _ = numbered(twins, images, QuantizationRecipe())
    assert write_model(again.integer_model) == write_model(ours.integer_model)


def test_calibration_on_noise_is_seen(twins, pixels, ours):
    def faint() -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        return (random.normal(0, 0.02, (1, 32, 32, 3)).astype(np.float32) for _ in range(8))

    broken, _ = numbered(twins, faint, QuantizationRecipe())
    assert error_of(broken, pixels) > 4 * error_of(ours, pixels)


def test_a_broken_scale_is_seen(twins, images, pixels, ours):
    broken, _ = numbered(twins, images, QuantizationRecipe())
    output = int(broken.pairs[4].integer_operator.outputs[0])
    tensor = broken.integer_tensor(output)
    tensor.quantization.scale = tensor.quantization.scale / 2
    assert error_of(broken, pixels) > 4 * error_of(ours, pixels)


def test_layers_left_in_float(ours, pixels):
    everything = with_float_layers(ours, range(len(ours.pairs) - 1))
    kinds = operators(everything)
    assert kinds.count("DEQUANTIZE") == 1  # no codes between float layers
    names = positions_of(ours, ["logits"])
    one = with_float_layers(ours, names)
    assert operators(one).count("DEQUANTIZE") == 1
    data = write_model(one)
    assert data == write_model(with_float_layers(ours, names))
    (last,) = [
        int(operator.outputs[0])
        for kind, operator in zip(kinds, everything.subgraphs[0].operators, strict=True)
        if kind == "FULLY_CONNECTED"
    ]
    probe, expected = Probe(everything, [last]), float_logits(ours, pixels)
    got = np.concatenate([probe(row)[last] for row in pixels])
    assert np.abs(got - expected).max() <= 1e-4 < error_of(ours, pixels)
    with pytest.raises(ConversionError, match=r"names 'logit'.*such as logits"):
        positions_of(ours, ["logit"])


def test_sensitivity_finds_the_broken_layer(twins, images, pixels):
    graph, _ = numbered(twins, images, QuantizationRecipe())
    bad = graph.pairs[4]
    tensor = graph.integer_tensor(int(bad.integer_operator.inputs[1]))
    buffer = graph.integer_model.buffers[tensor.buffer]
    codes = np.frombuffer(bytes(buffer.data), np.int8)
    buffer.data = np.frombuffer(np.roll(codes, 1).tobytes(), np.uint8)
    rows_seen: list[int] = []
    rows = graph_sensitivity(graph, pixels[:8], rows_seen.append)
    assert rows[0].layer == bad.layer
    assert rows[0].restored > 2 * rows[1].restored
    assert len(rows) == len(rows_seen) == sum(pair.is_weighted for pair in graph.pairs)
    assert worst_layers(rows, 1) == (bad.layer,)


def test_from_the_keras_network_to_a_file(folded, float_model, calibration, pixels, ours):
    advanced: list[int] = []
    settings = QuantizationRecipe(float_layers=("logits",))
    made = quantize(folded, float_model.normalization, calibration, settings, advanced.append)
    assert sum(advanced) == len(calibration)
    assert made.facts["float_layers"] == "logits"
    assert made.note == ""
    assert set(operators(read_model(made.data))) > {"QUANTIZE", "DEQUANTIZE", "CONV_2D"}
    noise = layer_signal_to_noise(made.float_twin, made.data, pixels[:2])
    assert [row.layer for row in noise if row.scale == 0] == ["logits"]
    rows = sensitivity(made.float_twin, write_model(ours.integer_model), pixels[:4], lambda _: None)
    assert len(rows) == 7


def test_files_that_do_not_correspond_are_refused(twins):
    real, integer = map(read_model, twins)
    real.subgraphs[0].operators.pop(2)
    with pytest.raises(PairingError, match="different from number 2 on"):
        pair_up(real, integer)
