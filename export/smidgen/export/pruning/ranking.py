"""Which channels go: the least important for what they cost, over all layers at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import PruningError
from smidgen.export.pruning.cost import Kernel, int8_bytes, kernels_of, multiply_adds
from smidgen.export.pruning.criteria import Importance
from smidgen.export.pruning.dependencies import ChannelGroup, Dependencies

BLOCK = 8
"""Channels go in blocks of so many: int8 kernels of XNNPACK and others work on 8 at a time, so a
layer of 33 channels costs as much as one of 40."""


@dataclass(frozen=True)
class Budget:
    """What a network may cost at most: multiply-adds for one image, estimated int8 bytes."""

    multiply_adds: float
    int8_bytes: float

    def excess(self, kernels: Sequence[Kernel]) -> tuple[float, float]:
        """How far ``kernels`` are above it, as shares of the budget; 0 where they are not."""
        return (
            max(0.0, multiply_adds(kernels) / self.multiply_adds - 1),
            max(0.0, int8_bytes(kernels) / self.int8_bytes - 1),
        )

    def worth(self, excess: tuple[float, float]) -> tuple[float, float]:
        """What a multiply-add and a byte saved are worth: nothing where the budget holds."""
        return (excess[0] > 0) / self.multiply_adds, (excess[1] > 0) / self.int8_bytes


@dataclass(frozen=True)
class Limits:
    """How far pruning goes: until ``budget`` holds, with no group under its floor.

    ``floors``: the fewest channels by name of the group; ``block`` where one is not named.
    """

    budget: Budget
    floors: Mapping[str, int] = field(default_factory=dict)
    block: int = BLOCK

    def fewer(self, name: str, count: int) -> int:
        """The next number of channels below ``count``; 0 where there is none."""
        left = (count - 1) // self.block * self.block
        return left if left >= max(self.block, self.floors.get(name, 0)) else 0


def least_valuable(
    network: Any, dependencies: Dependencies, importance: Importance, limits: Limits
) -> NDArray[np.int64]:
    """Ids of the channels to remove so that the budget holds, ``(R,) int64``.

    The greedy rule: of all groups, the block of least important channels whose importance for each
    share of the cost saved is smallest goes first; what is saved counts only where the budget does
    not hold yet. Each group keeps a multiple of ``limits.block`` channels; one that ``importance``
    does not name keeps all.

    Raises:
        PruningError: the budget cannot be held.
    """
    elastic, budget = _Elastic(network, dependencies), limits.budget
    kept = {group.name: len(group.channels) for group in dependencies.groups}
    sums = {name: np.concatenate([[0.0], np.cumsum(np.sort(v))]) for name, v in importance.items()}
    excess = budget.excess(elastic.kernels(kept))
    while any(excess):
        scores: dict[str, float] = {}
        for name, count in kept.items():
            left = limits.fewer(name, count)
            saved = elastic.saved({**kept, name: left}, kept, name, budget.worth(excess))
            if left and saved > 0:
                whole = len(sums[name]) - 1
                scores[name] = (sums[name][whole - left] - sums[name][whole - count]) / saved
        if not scores:
            raise _too_small(budget, elastic.kernels(kept))
        worst = min(scores, key=lambda name: scores[name])
        kept[worst] = limits.fewer(worst, kept[worst])
        excess = budget.excess(elastic.kernels(kept))
    return np.concatenate([np.zeros(0, np.int64), *_removed(dependencies, importance, kept)])


def _removed(
    dependencies: Dependencies, importance: Importance, kept: dict[str, int]
) -> Iterator[NDArray[np.int64]]:
    for group in dependencies.groups:
        if group.name not in importance:
            continue
        order = np.argsort(importance[group.name], kind="stable")
        yield group.channels[order[: len(group.channels) - kept[group.name]]]


def _too_small(budget: Budget, least: Sequence[Kernel]) -> PruningError:
    return PruningError(
        f"removing channels cannot make a network of {budget.multiply_adds:,.0f} multiply-adds and "
        f"{budget.int8_bytes:,.0f} bytes of int8 weights: {multiply_adds(least):,} and "
        f"{int8_bytes(least):,} remain at the least; raise channels.keep, or train a smaller "
        "backbone or image size"
    )


@dataclass(frozen=True)
class _Width:
    """Channels of an axis: those that stay, and how often each channel of a group occurs."""

    fixed: int
    of_groups: dict[str, int]

    def at(self, kept: dict[str, int]) -> int:
        return self.fixed + sum(times * kept[name] for name, times in self.of_groups.items())


class _Elastic:
    """The kernels of a network for any number of channels in its groups."""

    def __init__(self, network: Any, dependencies: Dependencies) -> None:
        self._kernels: list[tuple[Kernel, _Width, _Width]] = []
        group_of = _groups_by_channel(dependencies.groups)
        for kernel in kernels_of(network):
            entering = dependencies.entering.get(kernel.layer)
            leaving = dependencies.leaving.get(kernel.layer)
            width_in, width_out = _Width(kernel.width_in, {}), _Width(kernel.width_out, {})
            if entering is not None and leaving is not None:
                width_out = _width(leaving, group_of)
                if len(entering) == kernel.width_in:
                    width_in = _width(entering, group_of)
            self._kernels.append((kernel, width_in, width_out))

    def kernels(self, kept: dict[str, int], touched: str = "") -> list[Kernel]:
        """With so many channels; only those that ``touched`` belongs to, if it is given."""
        return [
            replace(kernel, width_in=width_in.at(kept), width_out=width_out.at(kept))
            for kernel, width_in, width_out in self._kernels
            if not touched or touched in width_in.of_groups or touched in width_out.of_groups
        ]

    def saved(
        self, after: dict[str, int], before: dict[str, int], name: str, worth: tuple[float, float]
    ) -> float:
        """What the network costs less where only group ``name`` changed, at what a multiply-add and
        a byte are worth."""
        old, new = self.kernels(before, name), self.kernels(after, name)
        fewer_adds = multiply_adds(old) - multiply_adds(new)
        return fewer_adds * worth[0] + (int8_bytes(old) - int8_bytes(new)) * worth[1]


def _groups_by_channel(groups: Sequence[ChannelGroup]) -> dict[int, str]:
    return {int(channel): group.name for group in groups for channel in group.channels}


def _width(channels: NDArray[np.int64], group_of: dict[int, str]) -> _Width:
    names = [group_of.get(int(channel), "") for channel in channels]
    counts = {name: names.count(name) for name in dict.fromkeys(names) if name}
    sizes: dict[str, set[int]] = {}
    for channel, name in zip(channels, names):
        sizes.setdefault(name, set()).add(int(channel))
    return _Width(names.count(""), {n: count // len(sizes[n]) for n, count in counts.items()})
