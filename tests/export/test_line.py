"""The line on a small network: four judged Bundles, resumed, failed and replaced."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from typing import Any

import pytest

from smidgen.export.errors import GateError, TargetError
from smidgen.export.line import export
from smidgen.export.recipe import ExportPlan, ExportRecipe, QuantizationRecipe
from smidgen.export.source import FloatModel
from smidgen.runtime import Bundle, Classifier, selftest
from smidgen.runtime.errors import OutputError
from smidgen.train.lock import sole_writer
from smidgen.train.progress import SilentProgress

U8 = QuantizationRecipe(onnx_activations="u8")
"""Not measured: that takes 21 processes. ``end_to_end/test_line.py`` measures."""

FOUR = ExportPlan(ExportRecipe(max_drop=20.0), U8)

ONE = ExportPlan(ExportRecipe(formats=("onnx",), schemes=("float32",)))


@pytest.fixture(scope="module")
def result(float_model, tmp_path_factory):
    return export(float_model, FOUR, tmp_path_factory.mktemp("export"))


def test_four_judged_bundles(result, float_model):
    assert result.ok, result
    names = [bundle.file for bundle in result.bundles]
    assert names == ["toy-float32.tflite", "toy-int8.tflite", "toy-float32.onnx", "toy-int8.onnx"]
    for exported in result.bundles:
        bundle = Bundle.open(exported.path)
        manifest = bundle.manifest
        assert manifest.verdict == exported.verdict
        assert (exported.verdict.images, exported.verdict.truth) == (40, "reference")
        assert exported.verdict.engine.split()[0] in ("litert", "onnxruntime")
        assert manifest.labels == float_model.labels
        assert manifest.minimum_runtime
        assert manifest.golden.score_tolerance == (1e-3 if manifest.scheme == "float32" else 0.02)
        assert manifest.provenance.calibration_images == (20 if manifest.scheme == "int8" else 0)
        assert "[export]" in manifest.provenance.recipe_toml
        if manifest.scheme == "float32":
            assert exported.verdict.max_score_difference <= 3e-5
        with Classifier(bundle) as classifier:
            assert selftest(classifier).passed
    left = {path.name for path in result.folder.iterdir()}
    assert left == {*names, "export.json", "model_card.md", "model_card.json", "passes"}
    report = json.loads((result.folder / "export.json").read_text())
    assert report["ok"] is True
    assert [entry["file"] for entry in report["bundles"]] == names
    assert report["versions"]["tensorflow"]


def test_a_second_export_makes_nothing_and_loads_nothing(result, float_model):
    def refuse():
        raise AssertionError("the model was loaded")

    before = {path.name: path.stat().st_mtime_ns for path in result.folder.iterdir()}
    progress = SilentProgress()
    source = dataclasses.replace(float_model, load=refuse)
    again = export(source, FOUR, result.folder, progress)
    assert again.bundles == result.bundles
    assert progress.stages == []
    assert before == {path.name: path.stat().st_mtime_ns for path in result.folder.iterdir()}


def damaged(float_model: FloatModel) -> FloatModel:
    """The same images, but held-out labels that contradict the model on purpose."""
    return dataclasses.replace(
        float_model,
        held_out=tuple(dataclasses.replace(p, label=0) for p in float_model.held_out),
    )


def outlier_network(network: Any) -> Any:
    """The same function, but one channel of the residual path is 10,000 times as large.

    The next layers take it back, so in float nothing changes; in int8 the range of that channel
    leaves no steps for the others.
    """
    import keras

    factor = 1e4
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    convolutions = [layer for layer in twin.layers if type(layer) is keras.layers.Conv2D]
    norms = [layer for layer in twin.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in (norms[1], norms[4]):  # behind the two projections that are added
        gamma, beta, *rest = norm.get_weights()
        gamma[0], beta[0] = gamma[0] * factor, beta[0] * factor
        norm.set_weights([gamma, beta, *rest])
    for convolution in (convolutions[2], convolutions[4]):  # those that take the sum in
        (kernel,) = convolution.get_weights()
        kernel[:, :, 0, :] /= factor
        convolution.set_weights([kernel])
    return twin


def test_a_failed_gate_keeps_the_file_under_a_name_that_says_so(float_model, tmp_path):
    recipe = ExportPlan(ExportRecipe(formats=("onnx",), schemes=("int8",), max_drop=20.0), U8)
    good = export(float_model, recipe, tmp_path)
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["toy-int8.onnx"]
    broken = outlier_network(float_model.load())
    source = dataclasses.replace(float_model, load=lambda: broken, weights_sha256="3" * 64)
    bad = export(source, recipe, tmp_path)
    assert (good.ok, bad.ok, bad.failed) == (True, False, True)
    assert bad.bundles[0].verdict.verdict == "fail"
    assert bad.bundles[0].verdict.drop_low_points > 20
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["toy-int8.gate-failed.onnx"]
    assert export(source, recipe, tmp_path).failed  # not made again, still failed
    assert export(float_model, recipe, tmp_path).ok
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["toy-int8.onnx"]


def test_one_failing_file_does_not_stop_the_others(float_model, tmp_path):
    source = dataclasses.replace(float_model, calibration_pool=(), held_out=())
    progress = SilentProgress()
    recipe = ExportPlan(ExportRecipe(formats=("onnx",), schemes=("int8", "float32")))
    result = export(source, recipe, tmp_path, progress)
    assert [bundle.file for bundle in result.bundles] == ["toy-float32.onnx"]
    assert result.bundles[0].verdict.images == 64  # synthetic pictures
    assert [failure.scheme for failure in result.failures] == ["int8"]
    assert "int8 needs calibration images" in result.failures[0].reason
    assert result.failed
    assert any("int8 .onnx failed" in note for note in progress.notes)


def test_undecided_fails_where_the_recipe_says_so(float_model, tmp_path):
    recipe = ExportPlan(ExportRecipe(formats=("onnx",), schemes=("int8",), undecided="fail"), U8)
    result = export(float_model, recipe, tmp_path)
    assert result.bundles[0].verdict.verdict in ("undecided", "fail")  # 40 images decide nothing
    assert result.failed
    assert result.bundles[0].file == "toy-int8.gate-failed.onnx"


def test_labels_are_the_truth_where_they_are_known(float_model, tmp_path):
    result = export(damaged(float_model), ONE, tmp_path)
    verdict = result.bundles[0].verdict
    assert verdict.truth == "labels"
    assert verdict.reference_top1_percent == verdict.top1_percent < 100


def test_leftovers_of_a_killed_export_go_and_a_folder_that_cannot_be_is_one_line(
    float_model, tmp_path
):
    left = tmp_path / ".export-killed"
    left.mkdir()
    (left / "half.onnx").write_bytes(b"half")
    export(float_model, ONE, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "toy-float32.onnx", "export.json", "model_card.md", "model_card.json",
    }  # fmt: skip
    with pytest.raises(OutputError, match="cannot write"):
        export(float_model, ONE, tmp_path / "export.json" / "below")


def test_the_work_of_another_export_is_not_taken_for_a_leftover(float_model, tmp_path):
    live = tmp_path / ".export-live"
    live.mkdir()
    progress, results = SilentProgress(), []
    with sole_writer(tmp_path, print):
        second = threading.Thread(
            target=lambda: results.append(export(float_model, ONE, tmp_path, progress))
        )
        second.start()
        deadline = time.monotonic() + 20
        while not progress.notes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert progress.notes[0].startswith("waiting for another smidgen process")
        assert (live.is_dir(), progress.stages) == (True, [])
    second.join()
    assert results[0].ok
    assert not live.exists()


def test_a_run_without_held_out_images_is_not_exported(float_model, tmp_path):
    source = dataclasses.replace(float_model, held_out=())
    with pytest.raises(GateError, match="no held-out images"):
        export(source, ONE, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_a_target_that_a_file_does_not_fit_is_refused_by_its_operator(float_model, tmp_path):
    plan = ExportPlan(
        ExportRecipe(formats=("tflite",), schemes=("float32",), targets=("edgetpu-ready",))
    )
    result = export(float_model, plan, tmp_path)
    assert not list(tmp_path.glob("*.tflite"))
    assert "does not run in edgetpu-ready" in result.failures[0].reason
    fits = ExportRecipe(formats=("onnx",), schemes=("float32",), targets=("onnxruntime==1.17",))
    assert export(float_model, ExportPlan(fits), tmp_path).ok


def test_a_target_that_nothing_is_made_for_is_one_line(float_model, tmp_path):
    for target, message in (
        ("onnxruntime", "only tflite is exported: add --formats onnx"),
        ("litter", "expected one of litert"),
    ):
        plan = ExportPlan(ExportRecipe(formats=("tflite",), targets=(target,)))
        with pytest.raises(TargetError, match=message):
            export(float_model, plan, tmp_path)
