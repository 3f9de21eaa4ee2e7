"""Debug: noise that was planted is found where it is, and what is to be tried is said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from smidgen.export.calibration import choose
from smidgen.export.errors import SourceError
from smidgen.export.formats.tflite_file import read_model, write_model
from smidgen.export.recipe import ExportPlan, QuantizationRecipe
from smidgen.export.seeing.diagnosis import Diagnosis, diagnose, plan_of
from smidgen.export.seeing.diagnosis_picture import draw_diagnosis
from smidgen.export.seeing.diagnosis_text import as_text
from smidgen.export.seeing.layer_noise import EXACT_DB, NoiseReport, layer_reports
from smidgen.export.seeing.remedies import worst
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.manifest import PassRecord
from smidgen.runtime.schema import as_mapping
from smidgen.train.progress import SilentProgress
from smidgen.train.recipe_toml import dumps

Make = Callable[..., Path]
BROKEN = 2
"""Which computing operator of the int8 file is broken by ``with_small_scale``."""


@pytest.fixture(scope="session")
def images(float_model) -> list[np.ndarray]:
    chosen = choose(
        float_model.calibration_pool, float_model.held_out, 12, float_model.preprocessing
    )
    return list(chosen.pixels())


@pytest.fixture(scope="session")
def report(twins, images) -> NoiseReport:
    return layer_reports(*twins, images)


@pytest.fixture
def found(float_model, int8_bundle: Make) -> Diagnosis:
    return diagnose(float_model, int8_bundle(), SilentProgress(), images=12)


def with_small_scale(data: bytes) -> bytes:
    """The output of one convolution reaches an eighth as far: what lies beyond is cut off."""
    model = read_model(data)
    graph = model.subgraphs[0]
    output = graph.tensors[graph.operators[BROKEN + 1].outputs[0]]  # a QUANTIZE comes first
    output.quantization.scale = output.quantization.scale / 8
    return write_model(model)


def test_every_layer_has_its_range_and_noise(report: NoiseReport) -> None:
    assert [layer.operator for layer in report.layers][-2:] == ["FULLY_CONNECTED", "SOFTMAX"]
    for layer in report.layers[:-1]:
        assert 15 < layer.sqnr_db <= layer.own_db + 1e-3 <= EXACT_DB + 1e-3
        step = (layer.int8_max - layer.int8_min) / 255
        assert step == pytest.approx(layer.scale, rel=1e-5)
        assert layer.int8_min - step < layer.float_min < layer.float_max < layer.int8_max + step
        assert layer.channel_spread >= 1
    assert report.per_tensor_kernels == ()


def test_the_first_layers_noise_is_its_own(report: NoiseReport) -> None:
    first = report.layers[0]
    assert first.own_db == pytest.approx(first.sqnr_db, abs=1e-3)


def test_own_noise_leaves_out_what_came_in(report: NoiseReport) -> None:
    """By hand, for the convolution behind the first: noise powers relative to the signal's."""
    first, second = report.layers[:2]
    own = 10 ** (-second.sqnr_db / 10) - 2 * 10 ** (-first.sqnr_db / 10)
    assert second.own_db == pytest.approx(min(EXACT_DB, -10 * np.log10(max(own, 1e-6))), abs=0.01)


def test_a_broken_range_is_found_where_it_is(twins, images, report: NoiseReport) -> None:
    broken = layer_reports(twins[0], with_small_scale(twins[1]), images)
    name = report.layers[BROKEN].layer
    # the head of this network magnifies what reaches it, so it is blamed as well
    assert {layer.layer for layer in worst(broken.layers, 2)} == {name, "logits"}
    assert {layer.own_db for layer in broken.layers[BROKEN + 1 : -2]} == {EXACT_DB}
    assert name != worst(report.layers)[0].layer
    assert broken.layers[BROKEN].own_db < report.layers[BROKEN].own_db - 8
    assert broken.layers[BROKEN].saturated > 0.02
    # what came before is as it was, what follows is not to blame
    assert broken.layers[:BROKEN] == report.layers[:BROKEN]
    assert broken.layers[BROKEN + 1].sqnr_db < report.layers[BROKEN + 1].sqnr_db - 8


def test_the_same_input_gives_the_same_numbers(twins, images, report: NoiseReport) -> None:
    assert layer_reports(*twins, images) == report


def test_a_channel_that_dominates_is_measured(
    small_network, float_model, images, report: NoiseReport
) -> None:
    from smidgen.export.formats.to_tflite import to_tflite_int8
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.quantization.twins import float_twin

    network = fold_batch_norms(small_network()).model
    project = [layer for layer in network.layers if layer.name.startswith("conv2d")][1]
    kernel, bias = project.get_weights()
    kernel[..., 0], bias[0] = 30 * kernel[..., 0], 30 * bias[0]
    project.set_weights([kernel, bias])
    chosen = choose(
        float_model.calibration_pool, float_model.held_out, 12, float_model.preprocessing
    )
    data = to_tflite_int8(network, float_model.normalization, chosen, lambda _: None)
    rows = layer_reports(float_twin(network, float_model.normalization), data, images).layers
    assert report.layers[1].channel_spread < 5
    assert rows[1].channel_spread > 10


def test_a_diagnosis_says_what_it_saw(found: Diagnosis) -> None:
    assert (found.file, found.source, found.images) == ("toy-int8.tflite", "toy", 12)
    assert found.logits_db == found.layers[-2].sqnr_db
    assert len(found.worst) == min(10, len({layer.layer for layer in found.layers[:-1]}))
    json.dumps(found.as_mapping())


def test_the_text_fits_a_page(found: Diagnosis) -> None:
    lines = as_text(found).splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line for line in lines if line.startswith(found.layers[0].layer)]
    assert f"{found.layers[0].sqnr_db:6.1f}" in rows[0]
    assert lines[-1].startswith(("-> ", "   "))


def test_the_picture_is_drawn(found: Diagnosis, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "noise.png"
    draw_diagnosis(found, path)
    with Image.open(path) as picture:
        assert picture.size == (1232, 858)
        colours = len(picture.convert("RGB").getcolors(1 << 20) or [])
        assert picture.convert("RGB").getpixel((3, 3)) == (255, 255, 255)
    assert colours > 100
    first = path.read_bytes()
    draw_diagnosis(found, path)
    assert path.read_bytes() == first


def test_onnx_is_sent_to_its_twin(float_model, make_bundle) -> None:
    path = make_bundle("toy-int8.onnx", scheme="int8")
    with pytest.raises(SourceError, match=r"looks at the \.tflite file of the same export"):
        diagnose(float_model, path, SilentProgress())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "float16"}, "is float16: debug looks at int8 files"),
        ({"weights_sha256": "9" * 64}, "was exported from other weights than toy run has now"),
        ({"passes": (PassRecord("qat", {}),)}, "whose float network is not kept"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    float_model, int8_bundle: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        diagnose(float_model, int8_bundle(**changes), SilentProgress())


def test_a_pruned_network_that_was_not_kept(float_model, int8_bundle: Make) -> None:
    plan = dumps(as_mapping(ExportPlan()))
    path = int8_bundle(recipe_toml=plan, passes=(PassRecord("channels", {}),))
    with pytest.raises(SourceError):
        diagnose(float_model, path, SilentProgress())


def test_the_plan_is_read_from_the_recipe_inside(int8_bundle: Make) -> None:
    plan = ExportPlan(quantization=QuantizationRecipe(calibrator="entropy"))
    path = int8_bundle(recipe_toml="[data]\nx = 1\n\n" + dumps(as_mapping(plan)))
    assert plan_of(Bundle.open(path).manifest) == plan


def test_a_diagnosis_is_frozen(found: Diagnosis) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.images = 3  # type: ignore[misc]
