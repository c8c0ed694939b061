"""Tell what events have missed from what they have not told yet.

A look at everything may see a change a moment before the event of it comes. So an object that is
not as the events had it is only suspected first, and counts as missed when none comes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

__all__ = ["Missed"]

K = TypeVar("K", bound=Hashable)

_GRACE: Final = 2.0
"""Seconds in which the event of what was seen has to come."""


_NAMED: Final = 10
"""How many of the missed ones are named in the log."""

_log = logging.getLogger(__name__)


class Missed(Generic[K]):
    """Objects by their keys: the suspected ones, and how many were missed so far.

    ``clock`` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._suspected: dict[K, float] = {}
        self._count = 0

    def suspect(self, keys: Iterable[K]) -> None:
        """Take note of objects that a look found changed and no event had told of."""
        now = self._clock()
        for key in keys:
            self._suspected.setdefault(key, now)

    def acquit(self, keys: Iterable[K]) -> None:
        """Take note of objects that an event has told of."""
        for key in keys:
            self._suspected.pop(key, None)

    def clear(self) -> None:
        """Suspect nothing any more: events were lost, and that is known."""
        self._suspected.clear()

    def count(self) -> int:
        """Tell how many were missed up to now."""
        before = self._clock() - _GRACE
        missed = [key for key, since in self._suspected.items() if since <= before]
        for key in missed:
            del self._suspected[key]
        if missed:
            # By name, because it should never be: whoever sees the count rise can tell of what.
            some = ", ".join(sorted(map(str, missed))[:_NAMED])
            _log.warning("changes were missed", extra={"count": len(missed), "objects": some})
        self._count += len(missed)
        return self._count
