"""Sets that share members, merged: a disjoint-set forest (Tarjan 1975)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

_Item = TypeVar("_Item", int, str)


class Forest(Generic[_Item]):
    """Disjoint sets; an item that was never joined is a set of its own."""

    def __init__(self) -> None:
        self._parent: dict[_Item, _Item] = {}

    def root(self, item: _Item) -> _Item:
        """The smallest member of the set of ``item``."""
        parent = self._parent
        while (above := parent.get(item, item)) != item:
            parent[item] = parent.get(above, above)  # path halving
            item = parent[item]
        return item

    def join(self, one: _Item, other: _Item) -> None:
        """Make the sets of both one."""
        one, other = self.root(one), self.root(other)
        self._parent[max(one, other)] = self._parent[min(one, other)] = min(one, other)

    def sets(self) -> tuple[tuple[_Item, ...], ...]:
        """The sets that were joined, each sorted, in the order of their smallest members."""
        members: dict[_Item, list[_Item]] = defaultdict(list)
        for item in sorted(self._parent):
            members[self.root(item)].append(item)
        return tuple(tuple(items) for items in members.values())


def components(chains: Iterable[Sequence[_Item]]) -> tuple[tuple[_Item, ...], ...]:
    """Merge ``chains`` that share an item, directly or through others; see ``Forest.sets``."""
    forest: Forest[_Item] = Forest()
    for chain in chains:
        for item in chain:
            forest.join(chain[0], item)
    return forest.sets()
