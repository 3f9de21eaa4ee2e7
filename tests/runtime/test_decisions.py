"""Temperature scaling on a device: by hand, with zeros and ties, and never another label."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from smidgen.runtime import Bundle
from smidgen.runtime.decisions import calibrated, score_floor, shown_scores
from smidgen.runtime.manifest import TensorSpec


def test_by_hand():
    scores = np.array([[0.64, 0.32, 0.04]], np.float32)
    roots = np.array([0.8, math.sqrt(0.32), 0.2])
    np.testing.assert_allclose(calibrated(scores, 2.0)[0], roots / roots.sum(), atol=1e-6)
    squares = np.array([0.64, 0.32, 0.04]) ** 2
    np.testing.assert_allclose(calibrated(scores, 0.5)[0], squares / squares.sum(), atol=1e-6)
    assert calibrated(scores, 1.0) is scores


def test_it_is_the_softmax_of_the_logits_divided_by_t():
    logits = np.random.default_rng(0).normal(0, 4, (200, 10))

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
        return result

    scores = softmax(logits).astype(np.float32)
    for temperature in (0.2, 0.7, 1.5, 5.0):
        found = calibrated(scores, temperature)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, softmax(logits / temperature), atol=2e-6)
    assert np.abs(calibrated(scores, 1.5) - softmax(logits / 1.6)).max() > 1e-3  # a planted fault


@pytest.mark.parametrize("temperature", [0.01, 0.2, 0.999, 3.0, 100.0])
@pytest.mark.parametrize("floor", [0.0, 1 / 5120])
def test_zeros_ties_and_tiny_scores_stay_finite_and_in_order(temperature, floor):
    rows = np.array(
        [
            [0.0, 0.0, 0.0, 0.0],
            [1.0, 0.0, 0.0, 0.0],
            [0.25, 0.25, 0.25, 0.25],
            [0.5, 0.5, 0.0, 0.0],
            [1e-38, 1e-45, 0.0, 0.0],
            [0.99609375, 0.00390625, 0.0, 0.0],
            [1.0, -1e-8, 0.0, 0.0],  # a delegate's rounding
        ],
        np.float32,
    )
    found = calibrated(rows, temperature, floor)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    totals = found.sum(axis=1)
    assert totals[0] == (0.0 if floor == 0 else pytest.approx(1.0))
    np.testing.assert_allclose(np.delete(totals, [0, 4]), 1.0, atol=1e-5)
    for before, after in zip(rows, found):
        assert after[int(before.argmax())] == after.max()
    assert found[2].tolist() == [0.25] * 4
    assert found[3, 0] == found[3, 1]


def test_no_label_changes_and_no_order_turns_round():
    scores = np.random.default_rng(2).dirichlet(np.full(1000, 0.01), 50).astype(np.float32)
    for temperature in (0.2, 1.3, 5.0):
        found = calibrated(scores, temperature)
        order = np.argsort(-scores, axis=1, kind="stable")
        sorted_scores = np.take_along_axis(found, order, axis=1)
        assert (np.diff(sorted_scores, axis=1) <= 1e-7).all()


def test_a_zero_of_an_integer_softmax_counts_as_half_a_step_of_all_classes(make_bundle):
    manifest = Bundle.open(make_bundle()).manifest
    classes = len(manifest.labels)
    floats = TensorSpec("probabilities", (1, classes), "float32", "NC", 0.0, 1.0)
    integers = dataclasses.replace(floats, dtype="uint8", high=255 / 256, scale=1 / 256)
    for output, form, scheme, steps in (
        (floats, "tflite", "float32", 0.0),
        (floats, "onnx", "int8", 0.0),  # its softmax is float
        (integers, "tflite", "int8", 1 / 512),
        (floats, "tflite", "int8", 1 / 512),  # --ends float32: integers inside
        (floats, "tflite", "int16x8", 1 / 65536),
    ):
        changed = dataclasses.replace(manifest, output=output, model_format=form, scheme=scheme)
        assert score_floor(changed) == steps / classes


def test_an_answer_with_zeros_beside_it_is_not_certain(make_bundle):
    manifest = Bundle.open(make_bundle()).manifest
    classes = len(manifest.labels)
    output = TensorSpec("probabilities", (1, classes), "uint8", "NC", 0.0, 255 / 256, scale=1 / 256)
    manifest = dataclasses.replace(
        manifest, output=output, model_format="tflite", scheme="int8", temperature=2.0
    )
    scores = np.zeros((1, classes), np.float32)
    scores[0, 0] = 255 / 256
    rest = (classes - 1) * math.sqrt(1 / 512 / classes / (255 / 256))
    assert shown_scores(scores, manifest)[0, 0] == pytest.approx(1 / (1 + rest), abs=1e-6)
    assert calibrated(scores, 2.0)[0, 0] == 1.0  # without the floor it would be
