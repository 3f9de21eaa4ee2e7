"""The rules of the remedies, each by a case that is made for it and one that is just not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smidgen.export.seeing.layer_noise import EXACT_DB, LayerReport, NoiseReport
from smidgen.export.seeing.remedies import Remedy, logits_db, remedies_for, worst
from smidgen.runtime.manifest import Verdict

GOOD = LayerReport(
    layer="conv", operator="CONV_2D", sqnr_db=30, own_db=32, float_min=0, float_max=6,
    int8_min=0, int8_max=6, scale=6 / 255, zero_point=-128, saturated=0, channel_spread=2,
    is_float=False,
)  # fmt: skip
PASSED = Verdict("pass", 400, 90.0, 89.9, 0.1, -0.2, 0.4, 1.0, 3, 0.01, 0.1)


def network(*changes: dict[str, object], count: int = 20) -> NoiseReport:
    """``count`` good layers, the first few changed, then logits and softmax."""
    layers = [replace(GOOD, layer=f"conv_{index}") for index in range(count)]
    for index, change in enumerate(changes):
        layers[index] = replace(layers[index], **change)  # type: ignore[arg-type]
    logits = replace(GOOD, layer="logits", operator="FULLY_CONNECTED", sqnr_db=25)
    end = replace(GOOD, layer="softmax", operator="SOFTMAX", sqnr_db=-50, own_db=-50)
    return NoiseReport((*layers, logits, end), ())


def settings(remedies: tuple[Remedy, ...]) -> list[str]:
    return [remedy.setting.partition(" =")[0] for remedy in remedies]


def test_a_good_file_needs_nothing() -> None:
    assert settings(remedies_for(network())) == ["nothing"]
    assert logits_db(network().layers) == 25


def test_a_pass_is_said_first() -> None:
    found = remedies_for(network({"saturated": 0.01}), PASSED)
    assert settings(found) == ["nothing", "quantization.calibrator"]
    passed = "the gate passed: drop 0.10 points [-0.20, 0.40]"
    assert found[0].why == f"{passed}; what follows is for more"
    assert remedies_for(network(), PASSED) == (Remedy("nothing", passed),)


@pytest.mark.parametrize(("share", "is_said"), [(0.0011, True), (0.001, False)])
def test_saturation(share: float, is_said: bool) -> None:
    found = remedies_for(network({"saturated": share}))
    assert ("quantization.calibrator" in settings(found)) is is_said
    if is_said:
        assert found[0].layers == ("conv_0",)
        assert "up to 0.11 %" in found[0].why


@pytest.mark.parametrize(
    ("spread", "own", "is_said"), [(12, 19, True), (10, 19, False), (12, 20, False)]
)
def test_a_channel_that_dominates(spread: float, own: float, is_said: bool) -> None:
    found = remedies_for(network({"channel_spread": spread, "own_db": own, "operator": "ADD"}))
    assert ("quantization.equalize" in settings(found)) is is_said


def test_few_bad_layers_stay_float() -> None:
    bad = {"own_db": 12.0}
    found = remedies_for(network(bad, bad))
    assert found[0].setting == 'quantization.float_layers = ["conv_0", "conv_1"]'
    assert settings(remedies_for(network(*[bad] * 5))) == ["quantization.float_layers"]
    assert "quantization.float_layers" not in settings(remedies_for(network(*[bad] * 6)))
    assert "than the median one (32 dB)" in found[0].why
    silent = network(bad, *[{"own_db": EXACT_DB}] * 19)
    assert "than most, which add none" in remedies_for(silent)[0].why
    # an addition has no weights that could stay float
    assert settings(remedies_for(network({**bad, "operator": "ADD"}))) == ["nothing"]


def test_noise_everywhere() -> None:
    report = network()
    layers = list(report.layers)
    layers[-2] = replace(layers[-2], sqnr_db=9.0)
    found = remedies_for(NoiseReport(tuple(layers), ()))
    assert settings(found) == ["export.calibration_images"]
    assert "much noise in the logits (9.0 dB)" in found[0].why


def test_one_scale_for_a_kernel() -> None:
    found = remedies_for(NoiseReport(network().layers, ("conv_3",)))
    assert found[0].setting == 'quantization.weight_scales = "per-channel"'
    assert found[0].layers == ("conv_3",)


def test_the_worst_are_quantized_layers_before_the_softmax() -> None:
    report = network({"own_db": 3.0, "is_float": True}, {"own_db": 5.0}, {"own_db": 4.0})
    assert [layer.layer for layer in worst(report.layers, 2)] == ["conv_2", "conv_1"]
