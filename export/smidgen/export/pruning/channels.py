"""The pass: channels go in steps; after each, what read them is fitted anew and all is tuned."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.progress import stage
from smidgen.export.pruning.cost import NetworkCost, cost_of
from smidgen.export.pruning.criteria import Importance, LabelledPixels, bn_scale, l2, taylor
from smidgen.export.pruning.dependencies import Dependencies, dependencies_of
from smidgen.export.pruning.ranking import Budget, Limits, least_valuable
from smidgen.export.pruning.reconstruction import refit
from smidgen.export.pruning.surgeon import surgeon, unranked
from smidgen.export.pruning.surgery import remove_channels
from smidgen.export.recipe import ChannelsRecipe
from smidgen.export.tensorflow_backend import keras
from smidgen.export.workshop import PassResult, TuningWish, Workshop
from smidgen.runtime.files import replacing, write_text

_IMAGES = 512
_FLOOR = 0.5
"""No group is left with less than this part of the share that the whole network keeps: a criterion
that judges channels one by one thinks too little of many that say the same."""


def prune_channels(network: Any, settings: ChannelsRecipe, workshop: Workshop) -> PassResult:
    """Remove channels from ``network`` until ``settings.keep`` of its cost remains, and tune it.

    That share is kept of both costs at most: multiply-adds, and bytes of an int8 file. See
    ``prune_to``. ``keep = 1`` gives the network back.

    Raises:
        PruningError: no channel can be removed, or not as many.
        SourceError: there are no images to rank channels with, or to tune on.
    """
    if settings.keep >= 1:
        return PassResult(network, {})
    cost = cost_of(network)
    target = Budget(cost.multiply_adds * settings.keep, cost.int8_bytes * settings.keep)
    return prune_to(target, network, settings, workshop)


def prune_to(
    target: Budget, network: Any, settings: ChannelsRecipe, workshop: Workshop
) -> PassResult:
    """Remove channels from ``network`` until ``target`` holds, in steps, and tune it after each.

    Each step removes the same share of what is left. Channels are ranked anew on the network as it
    is then; the teacher of every tuning is the unpruned network. The widths of residual connections
    stay (``left_alone`` in the facts says which and why).

    Args:
        target: what the result may cost.
        network: functional Keras model, normalised ``(N, H, W, 3) float32`` to logits; not changed.
        settings: criterion, steps and tuning; ``keep`` is not looked at.
        workshop: whose tuner trains. What was chosen in each step is kept in ``work``, so that a
            pass that was killed takes the same steps again, up to where it was.

    Raises:
        PruningError: no channel can be removed, or not as many.
        SourceError: there are no images to rank channels with, or to tune on.
    """
    course = _Course(network, cost_of(network), target, settings, workshop)
    course.work.mkdir(parents=True, exist_ok=True)
    history, smaller = _History(workshop.tuner.validation_top1(network)), network
    for step in range(1, settings.steps + 1):
        smaller = _cut(smaller, step, course, history)
        history.tuned.append(_tune(smaller, step, course))
        workshop.progress.note(_line(step, settings, cost_of(smaller), history))
    facts = {"criterion": course.criterion, **_facts(network, smaller, history)}
    return PassResult(smaller, facts)


@dataclass
class _History:
    """Validation top-1 before all steps, and in each: cut, with what read fitted anew, tuned."""

    start: float
    cut: list[float] = field(default_factory=list)
    fitted: list[float] = field(default_factory=list)
    tuned: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Course:
    """What all steps share; ``network`` is the unpruned one."""

    network: Any
    cost: NetworkCost
    target: Budget
    settings: ChannelsRecipe
    workshop: Workshop

    @cached_property
    def work(self) -> Path:
        """A folder for this network, target and settings."""
        digest = hashlib.sha256(repr((self.target, self.settings)).encode("utf-8"))
        for weight in self.network.get_weights():
            digest.update(weight.tobytes())
        return self.workshop.work / f"channels-{digest.hexdigest()[:8]}"

    @cached_property
    def criterion(self) -> str:
        """That of the settings, or taylor where the surgeon cannot rank a group."""
        if self.settings.criterion != "surgeon":
            return self.settings.criterion
        found = dependencies_of(self.network)
        left_out = unranked(self.network, found)
        if left_out:
            self.workshop.progress.note(
                f"channels are ranked by taylor: the surgeon cannot judge {len(left_out)} of "
                f"{len(found.groups)} groups, such as {left_out[0]}, which a larger kernel reads"
            )
        return "taylor" if left_out else "surgeon"

    @cached_property
    def widths(self) -> dict[str, int]:
        """Channels of each group before anything was removed."""
        groups = dependencies_of(self.network).groups
        return {group.name: len(group.channels) for group in groups}

    @cached_property
    def images(self) -> LabelledPixels:
        """What channels are ranked and layers are fitted with."""
        pixels, labels = self.workshop.tuner.batches(_IMAGES)
        return LabelledPixels(pixels, labels, self.workshop.source.normalization)

    def budget(self, step: int) -> Budget:
        """Of a step; that of the last one is the target."""
        return Budget(
            _between(self.cost.multiply_adds, self.target.multiply_adds, self._done(step)),
            _between(self.cost.int8_bytes, self.target.int8_bytes, self._done(step)),
        )

    def floors(self, step: int) -> dict[str, int]:
        """The fewest channels of each group that a step may leave."""
        budget = self.budget(step)
        share = min(
            budget.multiply_adds / self.cost.multiply_adds, budget.int8_bytes / self.cost.int8_bytes
        )
        return {name: int(_FLOOR * share * width) for name, width in self.widths.items()}

    def epochs(self, step: int) -> int:
        """All after the last step; a quarter of them after each one before."""
        epochs = self.settings.epochs
        return epochs if step == self.settings.steps else (epochs + 3) // 4

    def _done(self, step: int) -> float:
        return step / self.settings.steps


def _between(start: float, end: float, done: float) -> float:
    return float(start * min(1.0, end / start) ** done)


def _cut(network: Any, step: int, course: _Course, history: _History) -> Any:
    """The network without what was chosen now, or by this step when it ran before; fitted."""
    dependencies = dependencies_of(network)
    path = course.work / f"step-{step}.json"
    if path.is_file():
        removed = np.array(json.loads(path.read_text(encoding="utf-8")), np.int64)
    else:
        importance = _importance(network, dependencies, course)
        limits = Limits(course.budget(step), course.floors(step))
        removed = least_valuable(network, dependencies, importance, limits)
        write_text(path, json.dumps(removed.tolist()))
    smaller = remove_channels(network, dependencies, removed)
    kept = path.with_suffix(".npz")
    if not kept.is_file():
        _fit(smaller, network, removed, course, kept)
    with np.load(kept) as fitted:
        cut_top1, fitted_top1 = fitted["top1"]
        smaller.set_weights([fitted[f"{index}"] for index in range(len(smaller.get_weights()))])
    history.cut.append(float(cut_top1))
    history.fitted.append(float(fitted_top1))
    return smaller


def _fit(
    smaller: Any, larger: Any, removed: NDArray[np.int64], course: _Course, kept: Path
) -> None:
    """Fit what reads fewer channels; the weights, and top-1 before and after, go to ``kept``."""
    workshop, tuner = course.workshop, course.workshop.tuner
    top1 = [tuner.validation_top1(smaller)]
    with stage(workshop.progress, "fit layers", workshop.seconds):
        refit(smaller, larger, dependencies_of(larger), removed, course.images.sample)
    top1.append(tuner.validation_top1(smaller))
    weights = {f"{index}": array for index, array in enumerate(smaller.get_weights())}
    with replacing(kept) as temporary:
        np.savez(temporary, top1=np.array(top1), **weights)


def _importance(network: Any, dependencies: Dependencies, course: _Course) -> Importance:
    workshop, groups = course.workshop, dependencies.groups
    if course.criterion == "bn-scale":
        return bn_scale(network, groups)
    if course.criterion == "l2":
        return l2(network, groups)
    with stage(workshop.progress, "rank channels", workshop.seconds):
        if course.criterion == "surgeon":
            return surgeon(network, dependencies, course.images.sample)
        return taylor(network, groups, course.images)


def _tune(network: Any, step: int, course: _Course) -> float:
    from smidgen.train.fitting.tuning import TuningPlan, TuningSubject

    rate = course.settings.learning_rate
    share, weight = course.settings.teacher_share, course.settings.hint_weight
    plan = TuningPlan(
        course.epochs(step), rate, teacher_share=share, hint_weight=weight, batch_norm="frozen"
    )
    wish = TuningWish(f"{course.work.name}-step-{step}", plan)
    subject = TuningSubject(network, teacher=course.network, hints=_shortcuts(network))
    return course.workshop.tuner.tune(subject, wish)


def _shortcuts(network: Any) -> tuple[str, ...]:
    """Where a shortcut is added, channels stay: there both networks can be compared."""
    return tuple(layer.name for layer in network.layers if isinstance(layer, keras.layers.Add))


def _line(step: int, settings: ChannelsRecipe, cost: NetworkCost, history: _History) -> str:
    return (
        f"channels {step}/{settings.steps}: {cost.multiply_adds / 1e6:.1f} million multiply-adds, "
        f"{cost.parameters / 1e6:.2f} million parameters, validation top-1 "
        f"{100 * history.cut[-1]:.2f} % cut, {100 * history.fitted[-1]:.2f} % fitted, "
        f"{100 * history.tuned[-1]:.2f} % tuned"
    )


def _facts(network: Any, smaller: Any, history: _History) -> dict[str, str]:
    before, after = cost_of(network), cost_of(smaller)
    return {
        "multiply_adds": f"{before.multiply_adds} > {after.multiply_adds}",
        "parameters": f"{before.parameters} > {after.parameters}",
        "channels": channels_kept(network, smaller),
        "left_alone": "; ".join(dependencies_of(network).kept),
        "validation_top1_percent": _percent([history.start]),
        "validation_top1_percent_cut": _percent(history.cut),
        "validation_top1_percent_fitted": _percent(history.fitted),
        "validation_top1_percent_tuned": _percent(history.tuned),
    }


def _percent(shares: list[float]) -> str:
    return " ".join(f"{100 * share:.2f}" for share in shares)


def channels_kept(network: Any, smaller: Any) -> str:
    """What became of each group of ``network`` in ``smaller``: ``block_01_expand_conv 96>40 ...``.

    Both have the same layers by name.
    """
    parts = []
    for group in dependencies_of(network).groups:
        left = int(smaller.get_layer(group.name).kernel.shape[-1])
        parts.append(f"{group.name} {len(group.channels)}>{left}")
    return ", ".join(parts)
