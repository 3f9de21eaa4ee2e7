"""The manifest's text: exact bytes, old versions that still read, newer ones that say so."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Callable

import pytest

from smidgen.runtime import NotABundle
from smidgen.runtime.manifest import (
    FORMAT_VERSION,
    ClassAnswers,
    Manifest,
    PairedDrop,
    PassRecord,
    Verdict,
)

# As version 1 wrote it, verdict and all.
VERSION_1 = (
    '{"abstain_below":0.0,"format_version":1,"input":{"dtype":"uint8","high":255.0,"layout":'
    '"NHWC","low":0.0,"name":"image","scale":1.0,"shape":[-1,8,8,3],"zero_point":0},"labels":["red"'
    ',"grün","blue"],"minimum_runtime":{},"model_format":"onnx","name":"tiny","output":{"dtype":'
    '"float32","high":1.0,"layout":"NC","low":0.0,"name":"probabilities","scale":1.0,"shape":[-1,3]'
    ',"zero_point":0},"payload_sha256":"ab","preprocessing":{"background":[255,255,255],'
    '"crop_fraction":1.0,"exif_orientation":true,"fit":"crop","height":8,"resample":"bicubic",'
    '"width":8},"provenance":{"backbone":"tiny","calibration_images":0,"calibration_sha256":"",'
    '"commit":"","created_utc":"2026-11-22T00:00:00Z","data_sha256":"","recipe_toml":"","source":'
    '"test","versions":{},"weights_sha256":""},"scheme":"float32","verdict":{"changed_answers":12,'
    '"drop_high_points":3.25,"drop_low_points":1.75,"drop_points":2.5,"engine":"","images":400,'
    '"max_drop_points":1.0,"max_score_difference":0.4,"mean_score_difference":0.02,'
    '"reference_top1_percent":98.5,"top1_percent":96.0,"truth":"labels","verdict":"fail"}}'
)
OLD_VERDICT = Verdict("fail", 400, 98.5, 96.0, 2.5, 1.75, 3.25, 1.0, 12, 0.02, 0.4)
FULL_VERDICT = dataclasses.replace(
    OLD_VERDICT,
    lost=11,
    gained=1,
    mcnemar_p=0.00634765625,
    mcnemar_mid_p=0.00341796875,
    top5=PairedDrop(99.5, 99.25, 0.25, -0.5, 1.25),
    worst_class=ClassAnswers("grün", 40, 40, 31),
    classes_compared=3,
    confidence_shift_points=-1.5,
    reference_calibration_error_percent=2.0,
    calibration_error_percent=3.5,
)
NEW_PARTS = (
    '"mcnemar_mid_p":0.00341796875,"mcnemar_p":0.00634765625,',
    '"lost":11,',
    '"top5":{"drop_high_points":1.25,"drop_low_points":-0.5,"drop_points":0.25,"percent":99.25,'
    '"reference_percent":99.5},',
    '"worst_class":{"images":40,"label":"grün","reference_right":40,"right":31}',
    '"passes":[{"facts":{"groups":"4"},"name":"channels"}]',
    '"temperature":1.0,',
    '"format_version":2,',
)


def test_version_1_reads_and_lacks_nothing_but_what_is_new() -> None:
    manifest = Manifest.from_json(VERSION_1)
    assert manifest.verdict == OLD_VERDICT
    assert (manifest.format_version, manifest.provenance.passes) == (1, ())
    assert (manifest.temperature, manifest.abstain_below) == (1.0, 0.0)
    verdict = manifest.verdict
    assert verdict is not None
    assert (verdict.lost, verdict.mcnemar_p, verdict.top5, verdict.worst_class) == (None,) * 4


def test_what_is_written_is_of_the_version_whose_keys_it_has() -> None:
    """A reader of version 1 must be told to upgrade, not that a key is unknown."""
    again = json.loads(Manifest.from_json(VERSION_1).to_json())
    before = json.loads(VERSION_1)
    assert again.pop("format_version") == FORMAT_VERSION == 2
    assert again["provenance"].pop("passes") == []
    assert again.pop("temperature") == 1.0
    del before["format_version"]
    assert again == before


def test_the_new_text_is_exact_and_reads_back(make_manifest: Callable[..., Any]) -> None:
    manifest = make_manifest("onnx", "float32", "ab", verdict=FULL_VERDICT)
    origin = dataclasses.replace(
        manifest.provenance, passes=(PassRecord("channels", {"groups": "4"}),)
    )
    manifest = dataclasses.replace(manifest, provenance=origin)
    text = manifest.to_json()
    for part in NEW_PARTS:
        assert part in text
    assert Manifest.from_json(text) == manifest
    old = (
        text.replace(NEW_PARTS[-3] + ",", "")
        .replace(NEW_PARTS[-2], "")
        .replace('"format_version":2', '"format_version":1')
    )
    for part in NEW_PARTS[:3]:
        old = old.replace(part, "")
    for key in ('"gained":1,', '"classes_compared":3,', '"confidence_shift_points":-1.5,'):
        old = old.replace(key, "")
    old = old.replace('"reference_calibration_error_percent":2.0,', "")
    old = old.replace('"calibration_error_percent":3.5,', "").replace("," + NEW_PARTS[3], "")
    assert old == VERSION_1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (VERSION_1.replace('"format_version":1', '"format_version":3'), "upgrade smidgen-runtime"),
        (VERSION_1.replace('"engine"', '"engines"'), "unknown key 'engines' in [manifest.verdict]"),
        (VERSION_1.replace('"images":400,', ""), "manifest.verdict.images is missing"),
    ],
)
def test_newer_and_damaged_manifests_are_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(NotABundle) as caught:
        Manifest.from_json(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
