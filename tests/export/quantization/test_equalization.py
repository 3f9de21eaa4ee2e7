"""Rescaled channels: the same answers in float, narrower spread, and none through ReLU6."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.formats.tflite_file import read_model
from smidgen.export.graphs.deploy_graph import pixel_code
from smidgen.export.quantization.equalization import channel_groups, equalize
from smidgen.export.quantization.observation import observe
from smidgen.export.quantization.pairing import bias_index, pair_up
from smidgen.export.quantization.quantizer import decoded, set_numbers
from smidgen.export.quantization.sensitivity import float_logits
from smidgen.export.recipe import QuantizationRecipe


@pytest.fixture
def graph(twins):
    return pair_up(*map(read_model, twins))


@pytest.fixture
def images(calibration, float_model):
    code = pixel_code(float_model.normalization)
    return lambda: decoded(calibration, code)


def histograms_of(graph, images):
    return observe(graph, images(), lambda _: None, with_moments=False).histograms


def test_the_bottleneck_and_its_sum_are_one_group(graph):
    (group,) = channel_groups(graph)
    kinds = [graph.pairs[pair.position].kind for pair in group.makers + group.takers]
    assert kinds == ["CONV_2D"] * 4  # two projections make it, two expansions take it
    assert len(group.tensors) == 3


def test_answers_stay_and_channels_become_alike(graph, images, held_out):
    pixels = [row[np.newaxis] for row in held_out]
    before, seen = float_logits(graph, pixels), histograms_of(graph, images)
    (group,) = channel_groups(graph)
    assert equalize(graph, seen) == 1
    assert np.abs(float_logits(graph, pixels) - before).max() <= 1e-4 * np.abs(before).max()

    def spread(histogram):
        size = np.maximum(histogram.channel_high, -histogram.channel_low)
        return size.max() / size.min()

    after = histograms_of(graph, images)
    assert max(spread(after[i]) for i in group.tensors) < max(
        spread(seen[i]) for i in group.tensors
    )
    # planted fault: one maker's bias left as it was
    bias = bias_index(group.makers[0].float_operator)
    buffer = graph.float_model.buffers[graph.float_tensor(bias).buffer]
    buffer.data = np.frombuffer((np.frombuffer(buffer.data, np.float32) * 2).tobytes(), np.uint8)
    assert np.abs(float_logits(graph, pixels) - before).max() > 1e-2 * np.abs(before).max()


def test_kept_only_where_it_helps_images_not_seen(graph, images):
    facts = set_numbers(graph, images, QuantizationRecipe(), lambda _: None)
    assert facts["equalization"].startswith(("tried, no gain (logit error", "1 groups of channels"))
    off = set_numbers(graph, images, QuantizationRecipe(equalize=False), lambda _: None)
    assert off["equalization"] == "off"
