"""Tables that stay bounded, whatever is planted, and the same objects while nothing changes."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

__all__ = ["keep", "take_first"]

K = TypeVar("K")
V = TypeVar("V")


def take_first(
    names: Iterable[str], limit: int, prefer: Sequence[Collection[str]]
) -> tuple[list[str], int]:
    """Take as many names as the limit allows: of each collection in ``prefer``, then the rest.

    Sorted within each. Holds no more than ``limit`` names at a time, and tells how many are left.
    """
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for name in names:
            seen += 1
            yield name

    taken = heapq.nsmallest(
        limit, counted(), key=lambda name: ([name not in some for some in prefer], name)
    )
    return taken, seen - len(taken)


def keep(old: Mapping[K, V], new: Mapping[K, V]) -> Mapping[K, V]:
    """Return the old table when the new one holds the very same objects."""
    same = old.keys() == new.keys() and all(old[key] is value for key, value in new.items())
    return old if same else new
