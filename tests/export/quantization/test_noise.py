"""Signal to noise behind each layer: numbers, order, and a broken scale that it shows."""

from __future__ import annotations

import numpy as np
import pytest

from smidgen.export.errors import PairingError
from smidgen.export.formats.tflite_file import operators, read_model
from smidgen.export.quantization.noise import layer_signal_to_noise


def rows_of(twins, pixels):
    return layer_signal_to_noise(*twins, (row[np.newaxis] for row in pixels))


@pytest.fixture(scope="module")
def rows(twins, held_out):
    return rows_of(twins, held_out[:8])


def test_a_row_for_each_operator_in_order(rows, twins):
    assert [row.operator for row in rows] == operators(read_model(twins[0]))
    assert rows[-2].layer == "logits"
    assert all(3 < row.sqnr_db < 60 for row in rows)
    assert all(row.float_min < row.float_max and row.scale > 0 for row in rows)
    first = rows[0]
    assert (first.operator, first.float_min, first.zero_point) == ("CONV_2D", 0.0, -128)
    assert sorted(row.saturated for row in rows)[len(rows) // 2] < 0.01


def test_a_broken_scale_is_seen_where_it_is(rows, twins, held_out, with_changed):
    def halve(model):
        graph = model.subgraphs[0]
        output = graph.operators[3].outputs[0]  # QUANTIZE first: the third layer
        graph.tensors[output].quantization.scale = graph.tensors[output].quantization.scale / 2

    broken = with_changed(twins[1], halve)
    got = rows_of((twins[0], broken), held_out[:8])
    assert got[1].sqnr_db == pytest.approx(rows[1].sqnr_db)
    assert got[2].sqnr_db < rows[2].sqnr_db - 5
    assert got[2].saturated > 0.02 > rows[2].saturated
    assert rows_of((twins[0], broken), held_out[:8]) == got  # same input, same numbers


def test_files_of_two_networks_are_refused(twins, small_network, float_model):
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.quantization.twins import float_twin

    other = float_twin(fold_batch_norms(small_network(seed=1)).model, float_model.normalization)
    with pytest.raises(PairingError, match="differ by"):
        layer_signal_to_noise(other, twins[1], [])
    with pytest.raises(PairingError, match="different from number"):
        layer_signal_to_noise(_without_last(twins[0], with_count=1), twins[1], [])


def _without_last(data, with_count):
    from smidgen.export.formats.tflite_file import write_model

    model = read_model(data)
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:-with_count]
    return write_model(model)
