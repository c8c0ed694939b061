"""Whose turn it is to be asked whether its files changed.

``NeedDaemonReload`` comes with no signal, and has PID 1 look at the disk: 90 µs a unit. So units
are asked in turns, and only after something changed in a unit directory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["FileTurns"]


class FileTurns:
    """Names of units in the order in which they are asked, at most ``most`` a look."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._due: dict[str, None] = {}
        self._last = ""

    def add_all(self, names: Iterable[str]) -> None:
        """Have all be asked in the looks to come."""
        self._due.update(dict.fromkeys(names))

    def add_share(self, names: Collection[str]) -> None:
        """Have the next ones of all be asked, as far as one look goes."""
        ordered = sorted(names)
        later = [name for name in ordered if name > self._last]
        share = (later + ordered)[: min(self._most, len(ordered))]
        self._due.update(dict.fromkeys(share))
        self._last = share[-1] if share else ""

    def take(self) -> frozenset[str]:
        """Give those whose turn it is."""
        taken = list(self._due)[: self._most]
        for name in taken:
            del self._due[name]
        return frozenset(taken)
