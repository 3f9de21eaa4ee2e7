"""Which remedy to try next: a pure function of what was tried. No TensorFlow, no clock.

The order is that of their cost. Quantizing takes seconds, so it comes first. Accuracy that it loses
is looked for in other ranges, then in layers left in float32, then in quantization-aware training;
bytes and milliseconds in channel pruning, as deep as the first measurement says it must be, then
with more tuning, then with both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from smidgen.export.recipe import ExportPlan, Format
from smidgen.runtime.manifest import VerdictWord

_SAFETY = 0.95
"""Of a limit that is aimed at: the next file shall not land on it."""

_SHALLOWEST, _DEEPEST = 0.9, 0.1
_DEEPER = 0.85
"""The least that another depth of pruning differs by; less would not be worth its hours."""

_QAT_EPOCHS = 2


@dataclass(frozen=True)
class Limits:
    """What a file may cost; 0: no limit. ``undecided_fits``: where the gate cannot tell."""

    max_ms: float = 0.0
    max_bytes: int = 0
    undecided_fits: bool = True


@dataclass(frozen=True)
class Abilities:
    """What can be done with this float model: ``can_tune`` needs training images."""

    can_tune: bool
    formats: tuple[Format, ...]


@dataclass(frozen=True)
class Rung:
    """One remedy: its name (a file name's part), the plan that it is, and why it is tried."""

    name: str
    plan: ExportPlan
    why: str


@dataclass(frozen=True)
class Tried:
    """One file that a rung made, with what it costs; ``milliseconds`` None: not measured.

    ``word`` is None where the file could not be made; ``reason`` says why then.
    """

    rung: Rung
    model_format: Format
    file: Optional[Path]
    file_bytes: int
    milliseconds: Optional[float]
    word: Optional[VerdictWord]
    drop_points: float
    seconds: float
    reason: str = ""

    def keeps_accuracy(self, limits: Limits) -> bool:
        """Whether the gate lets it pass."""
        return self.word == "pass" or (self.word == "undecided" and limits.undecided_fits)

    def excess(self, limits: Limits) -> float:
        """How many times over the worse of its limits it is; at most 1 where it is within."""
        ratios = [1.0 if not limits.max_bytes else self.file_bytes / limits.max_bytes]
        if limits.max_ms:
            ratios.append(
                float("inf") if not self.milliseconds else self.milliseconds / limits.max_ms
            )
        return max(ratios) if any((limits.max_bytes, limits.max_ms)) else 1.0

    def fits(self, limits: Limits) -> bool:
        """Whether it is what was looked for."""
        return self.keeps_accuracy(limits) and self.excess(limits) <= 1


def winner(tried: Sequence[Tried], limits: Limits) -> Optional[Tried]:
    """The file that fits: one that passed before one the gate cannot tell of, then the smallest."""
    fitting = [item for item in tried if item.fits(limits)]
    return min(fitting, key=lambda item: (item.word != "pass", item.file_bytes), default=None)


def pareto(tried: Sequence[Tried], limits: Limits) -> tuple[Tried, ...]:
    """The files that no other one beats in bytes, milliseconds and accuracy, smallest first."""
    made = [item for item in tried if item.word is not None]

    def costs(item: Tried) -> tuple[float, ...]:
        slow = item.milliseconds if item.milliseconds is not None else float("inf")
        return (item.file_bytes, slow, 0.0 if item.keeps_accuracy(limits) else item.drop_points)

    def is_beaten(item: Tried) -> bool:
        own = costs(item)
        return any(
            other is not item
            and all(a <= b for a, b in zip(costs(other), own))
            and costs(other) != own
            for other in made
        )

    return tuple(sorted((i for i in made if not is_beaten(i)), key=lambda i: i.file_bytes))


def next_rung(
    base: ExportPlan, tried: Sequence[Tried], limits: Limits, abilities: Abilities
) -> Optional[Rung]:
    """The cheapest remedy left for what the files so far lack; None: one fits, or none is left."""
    if winner(tried, limits) is not None:
        return None
    names = {item.rung.name for item in tried}
    for rung in _remedies(base, tried, limits, abilities):
        if rung.name not in names:
            return rung
    return None


def _remedies(
    base: ExportPlan, tried: Sequence[Tried], limits: Limits, abilities: Abilities
) -> list[Rung]:
    """What may help now, the cheapest first; some of it was tried already."""
    made = [item for item in tried if item.word is not None]
    plain = Rung(
        "int8", _int8(base), "post-training quantization: seconds, about a quarter of float"
    )
    if not made:
        return [plain]
    remedies = [plain]
    smallest = min(item.excess(limits) for item in made)
    if smallest <= 1:  # something is small and fast enough: it is accuracy that lacks
        remedies += _rescues(made, limits, abilities)
    if abilities.can_tune:
        remedies += _prunings(base, made, limits)
    return remedies


def _int8(plan: ExportPlan) -> ExportPlan:
    return replace(plan, export=replace(plan.export, schemes=("int8",)))


def _rescues(made: Sequence[Tried], limits: Limits, abilities: Abilities) -> list[Rung]:
    """Remedies for the most accurate of the files within the limits, without another network."""
    integers = [item for item in made if item.rung.plan.export.schemes == ("int8",)]
    within = [item for item in integers if item.excess(limits) <= 1]
    if not within:
        return []
    nearest = min(within, key=lambda item: item.drop_points)
    plan, name = nearest.rung.plan, nearest.rung.name
    if plan.qat.epochs:
        return []
    rescues = []
    if plan.quantization.calibrator != "min-max" and not plan.quantization.mixed:
        other = replace(plan, quantization=replace(plan.quantization, calibrator="min-max"))
        rescues.append(Rung(f"{name}-min-max", other, "ranges that clip nothing"))
    if not plan.quantization.mixed:
        mixed = replace(plan, quantization=replace(plan.quantization, mixed=3))
        rescues.append(Rung(f"{name}-mixed", mixed, "the three worst layers stay float32"))
    half = replace(plan, export=replace(plan.export, schemes=("float16",)))
    rescues.append(
        Rung(name.split("int8")[0] + "float16", half, "float16 weights, float arithmetic")
    )
    if abilities.can_tune:
        base = name.removesuffix("-mixed").removesuffix("-min-max")
        quantization = replace(plan.quantization, mixed=0)
        qat = replace(plan, quantization=quantization, qat=replace(plan.qat, epochs=_QAT_EPOCHS))
        rescues.append(Rung(f"{base}-qat", qat, "quantization-aware training"))
    return rescues


def _prunings(base: ExportPlan, made: Sequence[Tried], limits: Limits) -> list[Rung]:
    """Channel pruning: deeper where files are too big or slow, longer where they lose too much."""
    plan = _int8(base)
    pruned = [item for item in made if item.rung.plan.channels.keep < base.channels.keep]
    if not pruned:
        excess = min(item.excess(limits) for item in made)
        if excess <= 1:
            return []
        keep = min(_SHALLOWEST, base.channels.keep * _SAFETY / excess)
        return [_pruned(plan, keep, 1)] if keep >= _DEEPEST else []
    last = pruned[-1]
    keep = last.rung.plan.channels.keep
    excess = min(i.excess(limits) for i in pruned if i.rung.plan.channels.keep == keep)
    if excess > 1:
        deeper = min(keep * _SAFETY / excess, keep * _DEEPER)
        return [_pruned(plan, deeper, 1)] if deeper >= _DEEPEST else []
    return [_pruned(plan, keep, 2)]


def _pruned(plan: ExportPlan, keep: float, times: int) -> Rung:
    """``times``: of the tuning epochs that the recipe has."""
    keep = round(keep, 2)
    channels = replace(plan.channels, keep=keep, epochs=plan.channels.epochs * times)
    name = f"channels-{100 * keep:.0f}" + (f"-{times}x" if times > 1 else "") + "-int8"
    longer = f", tuned {times} times as long" if times > 1 else ""
    why = f"channels of {100 - 100 * keep:.0f} % of the multiply-adds go{longer}"
    return Rung(name, replace(plan, channels=channels), why)
