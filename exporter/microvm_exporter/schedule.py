"""When the host is looked at next: by time, and how soon after an event."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from microvm_exporter.model import Cause

__all__ = ["Schedule"]

_FOLD: Final = 0.1
"""Seconds after an event in which others are waited for: what belongs together comes together."""

_APART: Final = 0.25
"""Seconds at least from the beginning of one look to that of one that an event brings about."""


class Schedule:
    """Looks every ``interval``, at everything every ``resync_interval``, both in seconds.

    A resync takes the place of the look that the interval brings, and one that comes late puts off
    the next, so that two observations are always an interval apart. ``clock`` gives monotonic
    seconds.
    """

    def __init__(
        self,
        interval: float,
        resync_interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._resync_interval = resync_interval
        self._clock = clock
        self._last = self._due = self._resync_due = clock()

    def begin(self, cause: Cause) -> None:
        """Take note that a look begins."""
        self._last = now = self._clock()
        if cause is not Cause.EVENT:
            self._due = now + self._interval
        if cause is Cause.RESYNC:
            self._resync_due = now + self._resync_interval

    def due(self) -> Cause | None:
        """Tell which look is due by time."""
        now = self._clock()
        if now < self._due:
            return None
        return Cause.RESYNC if now >= self._resync_due else Cause.INTERVAL

    def left(self) -> float:
        """Tell how many seconds there are until one is."""
        return max(0.0, self._due - self._clock())

    def pause(self) -> float:
        """Tell how many seconds to wait with the look that an event brings about."""
        return max(_FOLD, self._last + _APART - self._clock())
