"""Tell what changed between two tables: a record that is the same object did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["differing"]

K = TypeVar("K")
V = TypeVar("V")


def differing(new: Mapping[K, V], old: Mapping[K, V]) -> set[K]:
    """Give the keys whose value came, went, or is another object now."""
    if new is old:
        return set()
    get = old.get
    keys = {key for key, value in new.items() if get(key) is not value}
    # None of them is new and the number is the same: nothing can have gone.
    if len(new) != len(old) or not keys <= old.keys():
        keys |= old.keys() - new.keys()
    return keys
