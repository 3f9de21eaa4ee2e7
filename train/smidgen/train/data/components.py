"""Sets that share members, merged: disjoint-set forest (Tarjan 1975)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item", int, str)


def components(chains: Iterable[Sequence[_Item]]) -> tuple[tuple[_Item, ...], ...]:
    """Merge ``chains`` that share an item, directly or through others.

    Returns the merged sets, each sorted, in the order of their smallest items.
    """
    parent: dict[_Item, _Item] = {}

    def root_of(item: _Item) -> _Item:
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]  # path halving
            item = parent[item]
        return item

    for chain in chains:
        for item in chain:
            first, other = root_of(chain[0]), root_of(item)
            low, high = min(first, other), max(first, other)
            parent[high] = low
    members: dict[_Item, list[_Item]] = defaultdict(list)
    for item in sorted(parent):
        members[root_of(item)].append(item)
    return tuple(tuple(items) for items in members.values())
