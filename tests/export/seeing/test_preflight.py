"""What preflight says of known networks, and on which evidence."""

from __future__ import annotations

from typing import Any

import pytest

keras = pytest.importorskip("smidgen.export.tensorflow_backend").keras

from smidgen.export.formats import edgetpu  # noqa: E402
from smidgen.export.seeing import anatomy, targets  # noqa: E402
from smidgen.export.seeing.anatomy import anatomy_of  # noqa: E402
from smidgen.export.seeing.evidence import EVIDENCE, evidence_for  # noqa: E402
from smidgen.export.seeing.preflight import Preflight, Subject, lite_of, of_backbone, preflight  # noqa: E402
from smidgen.export.seeing.preflight_text import as_text  # noqa: E402
from smidgen.train.models.backbones import BACKBONES  # noqa: E402

KINDS = {"fine": 0, "costs": 1, "breaks": 2}


@pytest.fixture(scope="module")
def lite() -> Preflight:
    return preflight(of_backbone("efficientnet-lite0", None, 1000))


@pytest.fixture(scope="module")
def gated() -> Preflight:
    return preflight(of_backbone("efficientnet-b0", 64, 1000))


@pytest.fixture(scope="module")
def hard() -> Preflight:
    return preflight(of_backbone("mobilenet-v3-small", 96, 10))


def verdicts(found: Preflight) -> dict[str, str]:
    return {target.target: target.verdict for target in found.targets}


def test_lite0_has_the_size_that_was_measured(lite: Preflight) -> None:
    assert (lite.image_size, lite.parameters) == (224, 4_652_008)
    # files of the pretrained network: 18.57 MB float32, 5.27 MB int8
    assert lite.float32_bytes == pytest.approx(18.57e6, rel=0.02)
    assert lite.int8_bytes == pytest.approx(5.27e6, rel=0.02)
    # the widest place: the stem's 112 x 112 x 32 for the expansion to 96 channels
    assert lite.int8_peak_bytes == 112 * 112 * (96 + 24)
    assert lite.float32_peak_bytes == 4 * lite.int8_peak_bytes


def test_lite0_is_fine_where_it_fits(lite: Preflight) -> None:
    assert verdicts(lite) == {
        "litert": "fine", "onnxruntime": "fine", "tflite-micro": "costs", "edgetpu": "fine",
        "gpu": "fine", "nnapi": "costs",
    }  # fmt: skip
    assert lite.int8.verdict == "fine"
    assert not any(lite.parts.values())


def test_b0_costs_and_says_what_to_take(gated: Preflight) -> None:
    assert gated.parts["squeeze_excite"] == 16
    assert gated.parts["swish"] == 49
    assert verdicts(gated)["litert"] == "costs"
    assert gated.int8.verdict == "costs"
    assert "efficientnet-lite0" in gated.int8.instead
    figures = {(item.float_percent, item.int8_percent) for item in gated.int8.evidence}
    assert {(76.97, 71.71), (76.97, 75.82), (85.63, 2.11)} <= figures


def test_hard_swish_breaks_on_the_edge_tpu(hard: Preflight) -> None:
    found = next(target for target in hard.targets if target.target == "edgetpu")
    assert found.verdict == "breaks"
    assert (found.findings[0].subject, found.findings[0].count) == ("HARD_SWISH", 18)
    assert verdicts(hard)["litert"] == "costs"


def test_a_network_too_large_for_the_edge_tpu_or_a_board() -> None:
    image = keras.Input((32, 32, 3))
    flat = keras.layers.Flatten()(image)
    features = keras.layers.Dense(6000)(flat)
    network = keras.Model(image, keras.layers.Dense(10)(features))
    found = preflight(Subject("large", "vgg16", 32, 10, network))
    words = {
        (target.target, finding.subject): finding.verdict
        for target in found.targets
        for finding in target.findings
    }
    assert words["edgetpu", "size"] == "costs"
    assert words["tflite-micro", "flash"] == "breaks"
    assert words["tflite-micro", "RAM"] == "fine"


def test_an_unknown_layer_breaks_everywhere() -> None:
    image = keras.Input((32, 32, 3))
    x = keras.layers.UnitNormalization(name="unit")(image)
    network = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    found = preflight(Subject("strange", "resnet50", 32, 3, network))
    assert set(verdicts(found).values()) == {"breaks"}
    assert found.targets[0].findings[0].why == "no operator is known for unit (UnitNormalization)"


def test_the_worst_finding_comes_first_and_is_the_verdict(hard: Preflight) -> None:
    for target in hard.targets:
        ranks = [KINDS[finding.verdict] for finding in target.findings]
        assert ranks == sorted(ranks, reverse=True)
        assert KINDS[target.verdict] == ranks[0]


def test_the_table_of_the_edge_tpu_is_that_of_the_export() -> None:
    known = {kind for kinds in (*anatomy._LAYERS.values(), *anatomy._ACTIVATIONS.values())
             for kind in kinds}  # fmt: skip
    assert {kind for kind in known if kind not in edgetpu._MAPPED} == targets._NOT_IN_EDGETPU


def test_only_the_targets_asked_for() -> None:
    subject = of_backbone("efficientnet-lite0", 32, 2)
    found = preflight(subject, ["gpu"])
    assert [target.target for target in found.targets] == ["gpu"]


def test_a_smaller_image_is_proposed_and_fits() -> None:
    found = preflight(of_backbone("efficientnet-lite0", 224, 10), ["tflite-micro"])
    ram = next(item for item in found.targets[0].findings if item.subject == "RAM")
    assert "--image-size 96 for 512 kB" in ram.instead
    smaller = preflight(of_backbone("efficientnet-lite0", 96, 10), ["tflite-micro"])
    assert smaller.arena_bytes <= 512_000
    larger = preflight(of_backbone("efficientnet-lite0", 128, 10), ["tflite-micro"])
    assert larger.arena_bytes > 512_000


def test_the_text_fits_a_page_and_names_every_source(gated: Preflight) -> None:
    lines = as_text(gated).splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    for item in gated.int8.evidence:
        assert item.source in text
    for target in gated.targets:
        assert f"{target.target} {target.verdict} " in text


def test_the_mapping_holds_plain_values(lite: Preflight) -> None:
    mapping = lite.as_mapping()
    assert mapping["int8"]["evidence"][0]["float_percent"] == 75.1
    assert mapping["operators"]["CONV_2D"] == 33
    assert mapping["targets"][0]["target"] == "litert"


def test_evidence_is_of_networks_that_there_are() -> None:
    assert {item.network for item in EVIDENCE} <= set(BACKBONES)
    assert all(0 < item.int8_percent <= 100 and item.source for item in EVIDENCE)
    drops = {(item.network, item.drop_points) for item in EVIDENCE}
    assert ("efficientnet-lite0", 0.7) in drops
    assert ("efficientnet-b0", 5.26) in drops


@pytest.mark.parametrize(
    ("backbone", "networks"),
    [
        ("efficientnet-lite2", {"efficientnet-lite2"}),
        ("efficientnet-b7", {f"efficientnet-b{n}" for n in range(6)}),
        ("efficientnetv2-b1", {f"efficientnet-b{n}" for n in range(6)}),
        ("vgg16", set()),
    ],
)
def test_relatives_stand_in(backbone: str, networks: set[str]) -> None:
    assert {item.network for item in evidence_for(backbone)} == networks


@pytest.mark.parametrize(
    ("backbone", "lite"),
    [
        ("efficientnet-b3", "efficientnet-lite3"),
        ("efficientnet-b7", "efficientnet-lite4"),
        ("efficientnetv2-b1", "efficientnet-lite1"),
        ("mobilenet-v3-large", "efficientnet-lite0"),
        ("vgg16", "efficientnet-lite0"),
    ],
)
def test_the_lite_to_take(backbone: str, lite: str) -> None:
    assert lite_of(backbone) == lite


def test_the_peak_has_no_batch_in_it(small_network: Any) -> None:
    found = anatomy_of(small_network())
    assert found.tensor_sizes[0] == 32 * 32 * 3
