"""Preflight as text: sizes, what int8 is expected to do, and a table of the targets."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from smidgen.export.seeing.evidence import Evidence
from smidgen.export.seeing.preflight import Preflight
from smidgen.export.seeing.targets import TARGETS, Finding

_WIDTH = 100
_NAMES = {
    "squeeze_excite": "squeeze-excite blocks",
    "swish": "swish",
    "hard_swish": "hard-swish",
    "lone_batch_norms": "BatchNorms that cannot be folded",
    "unknown_layers": "layers without a known operator",
}


def as_text(found: Preflight) -> str:
    """The whole report, at most 100 characters wide, without a line break at its end."""
    lines = [*_facts(found), "", *_int8(found), "", *_targets(found), "", *_subjects(found)]
    return "\n".join(lines)


def _facts(found: Preflight) -> Iterator[str]:
    size = found.image_size
    yield f"{found.name}: {size} x {size} px, {found.classes:,} classes"
    yield ""
    pairs = [
        ("parameters", f"{found.parameters:,}"),
        ("multiply-adds", f"{found.multiply_adds / 1e6:,.0f} million for one image"),
        ("float32 file", f"{_mega(found.float32_bytes)} (estimate)"),
        ("int8 file", f"{_mega(found.int8_bytes)} (estimate)"),
        (
            "activations",
            f"{_mega(found.int8_peak_bytes)} as int8, {_mega(found.float32_peak_bytes)} as "
            "float32, at the peak",
        ),
        ("made of", _made_of(found)),
    ]
    for file in found.files:
        verdict = "no gate" if file.verdict is None else f"{file.verdict}, "
        drop = "" if file.drop_points is None else f"drop {file.drop_points:.2f} points"
        pairs.append((file.scheme, f"{_mega(file.file_bytes)} {file.file}: {verdict}{drop}"))
    for name, value in pairs:
        yield from _wrapped(f"{name:<16}", value)


def _made_of(found: Preflight) -> str:
    parts = [f"{count} {_NAMES[name]}" for name, count in found.parts.items() if count]
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    weighted = sum(found.operators.get(kind, 0) for kind in kinds)
    everything = f"{sum(found.operators.values())} operators, {weighted} of them with weights"
    return "; ".join([everything, *parts] if parts else [everything, "nothing that often hurts"])


def _int8(found: Preflight) -> Iterator[str]:
    yield from _wrapped(f"{'int8 accuracy':<16}", f"{found.int8.verdict}: {found.int8.why}")
    if found.int8.instead:
        yield from _wrapped(f"{'':<13}-> ", found.int8.instead)
    if not found.int8.evidence:
        yield " " * 16 + "no published figure is known here for this network: measure"
    width = max((len(_method(item, found.backbone)) for item in found.int8.evidence), default=0)
    for item in found.int8.evidence:
        method = _method(item, found.backbone)
        change = f"{item.float_percent:5.2f} -> {item.int8_percent:5.2f}  {-item.drop_points:+6.2f}"
        detail = f"; {item.detail}" if item.detail else ""
        yield from _wrapped(f"{'':<16}{change}  {method:<{width}}  ", item.source + detail)


def _method(item: Evidence, backbone: str) -> str:
    return item.method if item.network == backbone else f"{item.network}, {item.method}"


def _targets(found: Preflight) -> Iterator[str]:
    yield f"{'target':<16}{'verdict':<9}because of"
    for target in found.targets:
        worse = [finding.subject for finding in target.findings if finding.verdict != "fine"]
        place = TARGETS[target.target].name
        because = f"{place}: {', '.join(worse)}" if worse else place
        yield from _wrapped(f"{target.target:<16}{target.verdict:<9}", because)


def _subjects(found: Preflight) -> Iterator[str]:
    """Each thing that was found, once, and what it means on each target."""
    by_subject: dict[str, list[tuple[str, Finding]]] = {}
    for target in found.targets:
        for finding in target.findings:
            by_subject.setdefault(finding.subject, []).append((target.target, finding))
    for subject, pairs in by_subject.items():
        first = pairs[0][1]
        times = f"{first.count} x " if first.count > 1 else ""
        yield from _wrapped("", f"{times}{subject}" + (f": {first.what}" if first.what else ""))
        said = {target: finding.why for target, finding in pairs}
        for why in dict.fromkeys(said.values()):
            names = ", ".join(target for target in said if said[target] == why)
            yield from _wrapped(f"  {names:<14}", why)
        for instead in dict.fromkeys(finding.instead for _, finding in pairs if finding.instead):
            yield from _wrapped(f"{'':<13}-> ", instead)


def _wrapped(head: str, text: str) -> Sequence[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _mega(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
