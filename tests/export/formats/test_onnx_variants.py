"""Which int8 ONNX file is shipped: the fastest, the preferred one on ties, and float if none is."""

from __future__ import annotations

import onnx
import pytest
import zoo

from smidgen.export.errors import CandidateFailed, ConversionError
from smidgen.export.formats.onnx_variants import (
    ChildTimer,
    FakeTimer,
    Variant,
    choose_variant,
    variants_of,
)

TWO = (Variant("u8s8 per-channel", b"u8"), Variant("s8s8 per-channel", b"s8"))


def choice(first, second, float_ms=(10.0,) * 5):
    timer = FakeTimer({TWO[0].name: first, TWO[1].name: second, "float32": float_ms})
    return choose_variant(TWO, b"float", timer)


def test_the_clearly_faster_file_is_chosen():
    found = choice((5.0,) * 5, (4.0,) * 5)
    assert (found.variant, found.advice) == (TWO[1], "")
    facts = dict(found.facts)
    assert facts.pop("machine")
    assert facts == {
        "chosen": "s8s8 per-channel",
        "rounds": "5",
        "float32 ms": "10.00",
        "u8s8 per-channel ms": "5.00",
        "s8s8 per-channel ms": "4.00",
    }
    assert found.round_ms["s8s8 per-channel"] == (4.0,) * 5


@pytest.mark.parametrize(
    "second",
    [
        (4.8,) * 5,  # 4 % faster: within the noise
        (4.0, 4.0, 4.0, 5.1, 5.2),  # faster in 3 of 5 rounds only
        (9.0,) * 5,
    ],
)
def test_a_tie_goes_to_the_preferred_file(second):
    assert choice((5.0,) * 5, second).variant == TWO[0]


def test_a_machine_that_slows_down_does_not_decide():
    """Each round is compared with itself: the second file was unlucky to run in slow rounds."""
    found = choice((5.0, 5.0, 50.0, 50.0, 50.0), (4.0, 4.0, 40.0, 40.0, 40.0), (99.0,) * 5)
    assert found.variant == TWO[1]


@pytest.mark.parametrize("float_ms", [(4.0,) * 5, (5.1,) * 5])
def test_float_is_kept_where_int8_is_not_faster(float_ms):
    found = choice((5.0,) * 5, (6.0,) * 5, float_ms)
    assert found.advice == "keep float"
    assert found.facts["advice"].startswith("keep float: no int8 .onnx file is clearly faster")
    assert found.variant == TWO[0]


def test_no_variants_and_repeated_names_are_refused():
    timer = FakeTimer({})
    with pytest.raises(ConversionError, match=r"no int8 \.onnx file to choose from"):
        choose_variant((), b"", timer)
    with pytest.raises(ConversionError, match="have one name"):
        choose_variant((TWO[0], TWO[0]), b"", timer)


def test_real_files_are_timed_in_processes_of_their_own():
    tflite = zoo.int8_file(zoo.network())
    variants = variants_of([("per-channel", tflite)])
    assert [variant.name for variant in variants] == ["u8s8 per-channel", "s8s8 per-channel"]
    types = []
    for variant in variants:
        model = onnx.load_from_string(variant.data)
        quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
        zero_point = next(x for x in model.graph.initializer if x.name == quantize.input[2])
        types.append(onnx.TensorProto.DataType.Name(zero_point.data_type))
    assert types == ["UINT8", "INT8"]
    found = choose_variant(variants, variants[0].data, ChildTimer(rounds=2))
    assert {len(times) for times in found.round_ms.values()} == {2}
    assert all(ms > 0 for times in found.round_ms.values() for ms in times)


def test_a_file_that_does_not_run_is_a_failed_candidate():
    with pytest.raises(CandidateFailed, match=r"the \.onnx file broken failed in ONNX Runtime"):
        ChildTimer(rounds=1).measure({"broken": b"no model"})
