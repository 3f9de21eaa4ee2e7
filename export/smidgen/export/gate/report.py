"""A Comparison as text, as JSON and as JUnit XML: pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from smidgen.export.gate.metrics import FEWEST_IMAGES_OF_A_CLASS
from smidgen.export.gate.regression import Comparison, Side
from smidgen.export.gate.verdicts import decide
from smidgen.runtime.manifest import PairedDrop, Verdict
from smidgen.runtime.schema import as_mapping

JSON_VERSION = 1
SUITE = "smidgen gate"

# What XML 1.0 cannot hold, not even escaped: control characters, surrogates, U+FFFE and U+FFFF.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_text(comparison: Comparison) -> str:
    """The table for a reader, ending in the verdict."""
    return "".join(f"{line}\n" for line in _lines(comparison))


def as_json(comparison: Comparison) -> str:
    """One JSON object, keys sorted; ``verdict`` as in a manifest, absent where ``error`` says why.

    Shares are percentages, differences percentage points.
    """
    mapping = {"version": JSON_VERSION, **as_mapping(comparison), "result": _word(comparison)}
    return json.dumps(mapping, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def as_junit(comparison: Comparison) -> str:
    """JUnit XML: one test suite, a case for each question.

    A regression is a ``failure``. A gate that could not run or decide is an ``error``, so that no
    reader of such files takes it for a pass.
    """
    cases = list(_cases(comparison))
    counts = {kind: sum(case[1] == kind for case in cases) for kind in ("failure", "error")}
    seconds = f"{sum(comparison.seconds.values()):.3f}"
    numbers = {
        "tests": str(len(cases)), "failures": str(counts["failure"]),
        "errors": str(counts["error"]), "skipped": "0", "time": seconds,
    }  # fmt: skip
    suite = ElementTree.Element("testsuite", {"name": SUITE, **numbers})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(comparison):
        ElementTree.SubElement(properties, "property", {"name": name, "value": _xml(value)})
    for name, kind, message in cases:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": SUITE.replace(" ", "."), "name": name, "time": "0"}
        )
        if kind:
            told = {"message": _xml(message), "type": _word(comparison)}
            ElementTree.SubElement(case, kind, told).text = _xml(message)
    ElementTree.SubElement(suite, "system-out").text = _xml(as_text(comparison))
    root = ElementTree.Element("testsuites", {"name": SUITE, **numbers})
    root.append(suite)
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _word(comparison: Comparison) -> str:
    return comparison.verdict.verdict if comparison.verdict else "error"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield _fact("candidate", _side(comparison.candidate))
    yield _fact("against", _side(comparison.baseline))
    verdict = comparison.verdict
    if verdict is None:
        yield _fact("error", comparison.error)
        return
    yield _fact("images", _images(comparison.origin, verdict))
    yield ""
    yield f"{'':<20}{'against':>10}{'candidate':>11}{'drop':>9}   95 % interval"
    for name, drop in _drops(verdict):
        yield (
            f"{name:<20}{drop.reference_percent:>10.2f}{drop.percent:>11.2f}"
            f"{drop.drop_points:>9.2f}   [{drop.drop_low_points:.2f}, {drop.drop_high_points:.2f}]"
        )
    before, after = verdict.reference_calibration_error_percent, verdict.calibration_error_percent
    if before is not None and after is not None:
        yield f"{'calibration error %':<20}{before:>10.2f}{after:>11.2f}"
    yield ""
    for name, text in _facts(verdict):
        yield _fact(name, text)
    yield ""
    yield _fact("verdict", _conclusion(verdict, comparison.limits.parity))


def _fact(name: str, text: str) -> str:
    return f"{name:<20}{text}"


def _side(side: Side) -> str:
    return f"{side.name} ({side.kind}{', ' + side.engine if side.engine else ''})"


def _images(origin: str, verdict: Verdict) -> str:
    text = f"{verdict.images} from {origin}"
    if verdict.distinct_images is not None:
        text += (
            f"; only {verdict.distinct_images} different pictures, so the interval is by picture "
            f"(design effect {verdict.design_effect:.2f})"
        )
    return text


def _drops(verdict: Verdict) -> Iterator[tuple[str, PairedDrop]]:
    top1 = PairedDrop(
        verdict.reference_top1_percent,
        verdict.top1_percent,
        verdict.drop_points,
        verdict.drop_low_points,
        verdict.drop_high_points,
    )
    yield "top-1 %", top1
    if verdict.top5 is not None:
        yield "top-5 %", verdict.top5


def _facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    share = 100 * (1 - verdict.changed_answers / verdict.images)
    yield (
        "answers",
        f"{verdict.lost} lost, {verdict.gained} gained, {verdict.changed_answers} "
        f"changed; the same on {share:.2f} %",
    )
    yield "McNemar's test", f"p = {verdict.mcnemar_p:.3g} (mid-p {verdict.mcnemar_mid_p:.3g})"
    yield (
        "probabilities",
        f"mean difference {verdict.mean_score_difference:.2g}, largest "
        f"{verdict.max_score_difference:.2g}; mean confidence "
        f"{verdict.confidence_shift_points:+.2f} points",
    )
    worst, needed = verdict.worst_class, f"{FEWEST_IMAGES_OF_A_CLASS} images"
    if worst is None:
        yield "worst class", f"none has the {needed} that this needs"
    else:
        yield (
            "worst class",
            f"{worst.label}: of {worst.images} images {worst.reference_right} right before, "
            f"{worst.right} now (worst of the {verdict.classes_compared} classes with {needed} or "
            "more)",
        )


def _conclusion(verdict: Verdict, parity: float | None) -> str:
    low, high, limit = verdict.drop_low_points, verdict.drop_high_points, verdict.max_drop_points
    if parity is not None and verdict.verdict != "undecided":
        is_apart = verdict.max_score_difference > parity
        if is_apart or verdict.verdict == "pass":
            sign = "above" if is_apart else "within"
            return (
                f"{verdict.verdict}: the largest difference of a probability, "
                f"{verdict.max_score_difference:.2g}, is {sign} {parity:g}"
            )
    if verdict.verdict == "pass":
        return f"pass: at most {high:.2f} points are lost (95 %), {limit:g} may be"
    if verdict.verdict == "fail":
        return f"fail: at least {low:.2f} points are lost (95 %), {limit:g} may be"
    needed = verdict.images_to_decide
    more = f"about {needed} images would decide" if needed else "the drop is at the limit"
    return (
        f"undecided: between {low:.2f} and {high:.2f} points are lost (95 %), {limit:g} may be; "
        f"{more}"
    )


def _cases(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    """Each question: its name, ``failure``, ``error`` or nothing, and why."""
    verdict, parity = comparison.verdict, comparison.limits.parity
    if verdict is None:
        yield "both models answer", "error", comparison.error
        return
    yield "both models answer", "", ""
    word = decide(verdict.drop_low_points, verdict.drop_high_points, verdict.max_drop_points)
    if parity is not None and word == "undecided":
        word = "pass"  # the models are the same function or not, which the next case says
    kind = {"pass": "", "fail": "failure", "undecided": "error"}[word]
    yield "accuracy regression", kind, _conclusion(verdict, None) if kind else ""
    if parity is not None:
        is_apart = verdict.max_score_difference > parity
        yield "parity", "failure" if is_apart else "", _conclusion(verdict, parity)


def _properties(comparison: Comparison) -> Iterator[tuple[str, str]]:
    for name, one in (("candidate", comparison.candidate), ("baseline", comparison.baseline)):
        yield name, one.name
        yield f"{name}_sha256", one.sha256
    if comparison.verdict is None:
        return
    for name, value in as_mapping(comparison.verdict).items():
        if isinstance(value, (str, int, float)):
            yield name, str(value)


def _xml(text: str) -> str:
    """``text`` with what XML cannot hold written as its code."""
    return _NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
