"""What the gate prints: text, JSON and JUnit XML, in every outcome."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from smidgen.export.errors import GateError
from smidgen.export.gate.held_out import HeldOut
from smidgen.export.gate.regression import Comparison, FakeModel, Side, check_labels, compare
from smidgen.export.gate.report import as_json, as_junit, as_text
from smidgen.export.gate.verdicts import Limits
from smidgen.export.pictures import Picture
from smidgen.train.progress import SilentProgress

LABELS = tuple("abcdefghij")


def scores_of(answers: np.ndarray, sure: float = 0.7) -> np.ndarray:
    scores = np.full((len(answers), 10), (1 - sure) / 9, np.float32)
    scores[np.arange(len(answers)), answers] = sure
    return scores


def comparison(wrong: int, images: int = 400, limits: Limits | None = None) -> Comparison:
    """The candidate has ``wrong`` of the images wrong, the baseline none."""
    truth = np.arange(images) % 10
    after = truth.copy()
    after[:wrong] = (after[:wrong] + 1) % 10
    pictures = tuple(Picture(f"{n}.png", f"{n:064}", int(label)) for n, label in enumerate(truth))
    return compare(
        FakeModel("new.tflite", LABELS, scores_of(after, 0.6)),
        FakeModel("old.tflite", LABELS, scores_of(truth)),
        HeldOut(pictures, "photos"),
        limits or Limits(1.0),
        SilentProgress(),
    )


def test_the_table_of_a_regression():
    text = as_text(comparison(40))
    lines = text.splitlines()
    assert lines[:3] == [
        "candidate           new.tflite (fake, fake 1)",
        "against             old.tflite (fake, fake 1)",
        "images              400 from photos",
    ]
    top1 = next(line for line in lines if line.startswith("top-1"))
    assert top1.split() == ["top-1", "%", "100.00", "90.00", "10.00", "[7.43,", "13.33]"]
    assert "40 lost, 0 gained, 40 changed; the same on 90.00 %" in text
    assert "p = 1.82e-12" in text  # 2 / 2^40
    assert "calibration error %      30.00      30.00" in text
    assert "mean confidence -10.00 points" in text
    assert "a: of 40 images 40 right before, 36 now (worst of the 10 classes" in text
    assert lines[-1] == ("verdict             fail: at least 7.43 points are lost (95 %), 1 may be")


def test_the_conclusions():
    assert "pass: at most 0.95 points are lost" in as_text(comparison(0))
    assert "undecided: between -0.21 and 2.20" in as_text(comparison(3, 397))
    assert "about " in as_text(comparison(1, 397))
    assert "within 0.2" in as_text(comparison(0, limits=Limits(1.0, 0.2)))
    assert "fail: the largest difference of a probability, 0.1, is above 0.01" in as_text(
        comparison(0, limits=Limits(1.0, 0.01))
    )


def test_turned_pictures_are_said():
    found = comparison(10)
    verdict = dataclasses.replace(found.verdict, distinct_images=100, design_effect=2.5)
    text = as_text(dataclasses.replace(found, verdict=verdict))
    assert "only 100 different pictures, so the interval is by picture (design effect 2.50)" in text


def test_json_holds_every_number():
    found = comparison(40)
    content = json.loads(as_json(found))
    assert (content["version"], content["result"]) == (1, "fail")
    assert content["candidate"] == {
        "name": "new.tflite", "kind": "fake", "sha256": "0" * 64, "engine": "fake 1",
    }  # fmt: skip
    verdict = content["verdict"]
    assert (verdict["lost"], verdict["gained"], verdict["images"]) == (40, 0, 400)
    assert verdict["worst_class"] == {
        "label": "a", "images": 40, "reference_right": 40, "right": 36,
    }  # fmt: skip
    assert verdict["top5"]["percent"] == 90.0
    assert content["limits"] == {"max_drop_points": 1.0}
    failed = Comparison(Side("new"), Side("old"), "photos", Limits(1.0), error="it crashed")
    content = json.loads(as_json(failed))
    assert (content["result"], content["error"]) == ("error", "it crashed")
    assert "verdict" not in content


def checked(text: str) -> tuple[ElementTree.Element, dict[str, ElementTree.Element]]:
    """A JUnit file with the structure that CI servers read: the suite, and its cases by name."""
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite"
    order = [child.tag for child in suite]
    cases = suite.findall("testcase")
    assert order == ["properties", *["testcase"] * len(cases), "system-out"]
    for name in ("tests", "failures", "errors", "skipped"):
        assert root.attrib[name] == suite.attrib[name]
    counted = {"tests": len(cases)}
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        counted[plural] = len(suite.findall(f"testcase/{tag}"))
    assert {name: int(suite.attrib[name]) for name in counted} == counted
    assert float(suite.attrib["time"]) >= 0
    for case in cases:
        assert case.attrib["name"]
        assert case.attrib["classname"] == "smidgen.gate"
        assert {child.tag for child in case} <= {"failure", "error", "skipped"}
        assert all(child.attrib["message"] and child.attrib["type"] for child in case)
    properties = suite.find("properties")
    assert properties is not None
    assert all(set(entry.attrib) == {"name", "value"} for entry in properties)
    return suite, {case.attrib["name"]: case for case in cases}


def outcome(case: ElementTree.Element) -> str:
    return case[0].tag if len(case) else "passed"


def test_junit_of_each_verdict():
    expected = [
        (comparison(0), "passed"),
        (comparison(40), "failure"),
        (comparison(1, 397), "error"),
    ]
    for found, word in expected:
        _, cases = checked(as_junit(found))
        assert list(cases) == ["both models answer", "accuracy regression"]
        assert outcome(cases["accuracy regression"]) == word
        assert outcome(cases["both models answer"]) == "passed"
    suite, cases = checked(as_junit(comparison(40)))
    assert "at least 7.43 points are lost" in cases["accuracy regression"][0].attrib["message"]
    properties = {entry.attrib["name"]: entry.attrib["value"] for entry in suite[0]}
    assert (properties["lost"], properties["candidate"]) == ("40", "new.tflite")


def test_junit_of_parity():
    near, far = (comparison(0, limits=Limits(1.0, parity)) for parity in (0.2, 0.01))
    assert [outcome(case) for case in checked(as_junit(near))[1].values()] == ["passed"] * 3
    suite, cases = checked(as_junit(far))
    assert [outcome(case) for case in cases.values()] == ["passed", "passed", "failure"]
    assert suite.attrib["failures"] == "1"
    few = comparison(0, images=50, limits=Limits(1.0, 0.2))  # too few, but parity decides
    assert few.passed
    assert checked(as_junit(few))[0].attrib["errors"] == "0"


def test_junit_of_what_could_not_run_and_of_hostile_names():
    name = 'a<b>&"\x01\udc80\ufffe.tflite'
    failed = Comparison(Side(name), Side("old"), "photos", Limits(1.0), error=f"{name} crashed")
    text = as_junit(failed)
    suite, cases = checked(text)
    assert [outcome(case) for case in cases.values()] == ["error"]
    assert suite.attrib["errors"] == "1"
    assert cases["both models answer"][0].attrib["message"] == (
        'a<b>&"\\u0001\\udc80\\ufffe.tflite crashed'
    )
    # planted fault: unescaped it is not XML
    with pytest.raises(ElementTree.ParseError):
        checked(text.replace("\\u0001", "\x01"))
    with pytest.raises(ElementTree.ParseError):
        checked(text.replace("&lt;", "<"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("a", "b", "d"), "it lacks 'c' and has 'd' more (3 labels before, 3 now)"),
        (("a", "b"), "it lacks 'c' (3 labels before, 2 now)"),
        (("a", "b", "c", "d"), "it has 'd' more (3 labels before, 4 now)"),
        (("a", "c", "b"), "it has them in another order (number 2 is 'c', was 'b')"),
    ],
)
def test_other_labels_are_refused_in_one_line(labels, words):
    nothing = np.zeros((0, 3), np.float32)
    old = FakeModel("old.tflite", ("a", "b", "c"), nothing)
    check_labels(old, old)
    with pytest.raises(GateError) as caught:
        check_labels(FakeModel("new.tflite", labels, nothing), old)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
