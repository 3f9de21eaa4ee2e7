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

    def worth(self, adds: int, size: int) -> tuple[float, float]:
        """What saving a multiply-add, or a byte, is worth to a network that costs ``adds`` and
        ``size``: nothing where the budget holds."""
        return (
            (adds > self.multiply_adds) / self.multiply_adds,
            (size > self.int8_bytes) / self.int8_bytes,
        )


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
    elastic = _Elastic(network, dependencies)
    sums = {name: np.concatenate([[0.0], np.cumsum(np.sort(v))]) for name, v in importance.items()}
    scores: dict[str, float] = {}
    stale, worth = set(importance), (0.0, 0.0)
    while any(now := limits.budget.worth(elastic.multiply_adds, elastic.int8_bytes)):
        stale, worth = (stale, worth) if now == worth else (set(importance), now)
        for name in stale & importance.keys():
            count, left = elastic.kept[name], limits.fewer(name, elastic.kept[name])
            adds, size = elastic.saved(name, left)
            gain, whole = adds * worth[0] + size * worth[1], len(sums[name]) - 1
            lost = sums[name][whole - left] - sums[name][whole - count]
            scores[name] = lost / gain if left and gain > 0 else np.inf
        worst = min(importance, key=lambda name: scores[name])
        if scores[worst] == np.inf:
            raise _too_small(limits.budget, elastic)
        stale = elastic.shrink(worst, limits.fewer(worst, elastic.kept[worst]))
    return np.concatenate(
        [np.zeros(0, np.int64), *_removed(dependencies, importance, elastic.kept)]
    )


def _removed(
    dependencies: Dependencies, importance: Importance, kept: dict[str, int]
) -> Iterator[NDArray[np.int64]]:
    for group in dependencies.groups:
        if group.name not in importance:
            continue
        order = np.argsort(importance[group.name], kind="stable")
        yield group.channels[order[: len(group.channels) - kept[group.name]]]


def _too_small(budget: Budget, least: _Elastic) -> PruningError:
    return PruningError(
        f"removing channels cannot make a network of {budget.multiply_adds:,.0f} multiply-adds and "
        f"{budget.int8_bytes:,.0f} bytes of int8 weights: {least.multiply_adds:,} and "
        f"{least.int8_bytes:,} remain at the least; raise channels.keep, or train a smaller "
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
    """The kernels of a network while channels leave its groups, and what they cost by now."""

    def __init__(self, network: Any, dependencies: Dependencies) -> None:
        self.kept = {group.name: len(group.channels) for group in dependencies.groups}
        self._kernels: list[Kernel] = list(kernels_of(network))
        self._widths: list[tuple[_Width, _Width]] = []
        group_of = _groups_by_channel(dependencies.groups)
        for kernel in self._kernels:
            entering = dependencies.entering.get(kernel.layer)
            leaving = dependencies.leaving.get(kernel.layer)
            width_in, width_out = _Width(kernel.width_in, {}), _Width(kernel.width_out, {})
            if entering is not None and leaving is not None:
                width_out = _width(leaving, group_of)
                if len(entering) == kernel.width_in:
                    width_in = _width(entering, group_of)
            self._widths.append((width_in, width_out))
        self._touched: dict[str, list[int]] = {name: [] for name in self.kept}
        for index, (width_in, width_out) in enumerate(self._widths):
            for name in {**width_in.of_groups, **width_out.of_groups}:
                self._touched[name].append(index)
        self.multiply_adds = multiply_adds(self._kernels)
        self.int8_bytes = int8_bytes(self._kernels)

    def saved(self, name: str, left: int) -> tuple[int, int]:
        """Multiply-adds and bytes fewer, were ``left`` channels left in a group."""
        old = [self._kernels[index] for index in self._touched[name]]
        new = self._with({**self.kept, name: left}, name)
        return multiply_adds(old) - multiply_adds(new), int8_bytes(old) - int8_bytes(new)

    def shrink(self, name: str, left: int) -> set[str]:
        """Leave ``left`` channels in a group; the groups that cost something else now."""
        adds, size = self.saved(name, left)
        self.kept[name] = left
        self.multiply_adds -= adds
        self.int8_bytes -= size
        for index, kernel in zip(self._touched[name], self._with(self.kept, name)):
            self._kernels[index] = kernel
        pairs = [self._widths[index] for index in self._touched[name]]
        return {other for pair in pairs for width in pair for other in width.of_groups}

    def _with(self, kept: dict[str, int], name: str) -> list[Kernel]:
        """The kernels that a group touches, for so many channels."""
        return [
            replace(
                self._kernels[index],
                width_in=self._widths[index][0].at(kept),
                width_out=self._widths[index][1].at(kept),
            )
            for index in self._touched[name]
        ]


def _groups_by_channel(groups: Sequence[ChannelGroup]) -> dict[int, str]:
    return {int(channel): group.name for group in groups for channel in group.channels}


def _width(channels: NDArray[np.int64], group_of: dict[int, str]) -> _Width:
    names = [group_of.get(int(channel), "") for channel in channels]
    counts = {name: names.count(name) for name in dict.fromkeys(names) if name}
    sizes: dict[str, set[int]] = {}
    for channel, name in zip(channels, names):
        sizes.setdefault(name, set()).add(int(channel))
    return _Width(names.count(""), {n: count // len(sizes[n]) for n, count in counts.items()})
