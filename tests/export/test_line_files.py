"""What the line leaves behind: the same bytes from the same input, a C header, parity in words."""

from __future__ import annotations

import json

import pytest

from smidgen.export.line import export
from smidgen.export.recipe import ExportPlan, ExportRecipe, QuantizationRecipe

pytestmark = pytest.mark.slow

U8 = QuantizationRecipe(onnx_activations="u8")
PLAN = ExportPlan(ExportRecipe(schemes=("int8",), max_drop=20.0, c_header=True), U8)


@pytest.fixture(scope="module")
def result(float_model, tmp_path_factory):
    return export(float_model, PLAN, tmp_path_factory.mktemp("first"))


def test_equal_inputs_give_equal_bytes(result, float_model, tmp_path):
    again = export(float_model, PLAN, tmp_path)
    assert result.ok, result.failures
    for first, second in zip(result.bundles, again.bundles, strict=True):
        assert first.path.read_bytes() == second.path.read_bytes(), first.file
    header = "toy-int8.h"
    assert (result.folder / header).read_text() == (tmp_path / header).read_text()
    other = QuantizationRecipe(onnx_activations="u8", calibrator="min-max")
    changed = export(float_model, ExportPlan(PLAN.export, other), tmp_path)
    assert changed.bundles[0].file_sha256 != result.bundles[0].file_sha256  # planted: other ranges


def test_a_c_header_goes_with_the_int8_file_and_says_its_ram(result):
    text = (result.folder / "toy-int8.h").read_text()
    (tflite,) = (bundle for bundle in result.bundles if bundle.model_format == "tflite")
    arena = int(tflite.facts["tflite-micro arena bytes"])
    assert 1_000 < arena < 200_000
    assert f"#define TOY_INT8_ARENA_BYTES {arena}" in text


def test_parity_of_formats_and_batches_is_on_record(result):
    report = json.loads((result.folder / "export.json").read_text())
    (onnx,) = (entry for entry in report["bundles"] if entry["model_format"] == "onnx")
    assert onnx["facts"]["batches"].startswith("1, 2, 7 agree to")
    assert "of 40 images" in onnx["facts"]["same as .tflite"]
    assert onnx["gzip_bytes"] < onnx["file_bytes"]
