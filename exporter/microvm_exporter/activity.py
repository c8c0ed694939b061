"""What the exporter itself has done since it started: counted while it works, told as a record."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from microvm_exporter.model import Cause

__all__ = ["DELAY_BOUNDS", "Activity", "Delays", "Tally"]

DELAY_BOUNDS: Final = (0.25, 1.0)
"""Upper bounds in seconds: an event that comes alone is published within the first, and every one
is to be within the last. Two, because each costs a series of the 80 that a host may have."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Times from an event to the snapshot that shows it.

    ``within`` is how many took no longer than each of `DELAY_BOUNDS`, ``count`` how many there
    were, and ``total`` their sum in seconds.
    """

    within: tuple[int, ...] = (0,) * len(DELAY_BOUNDS)
    count: int = 0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Activity:
    """How often the host was looked at, by cause, and how fast what was heard of was shown."""

    refreshes: Mapping[Cause, int] = field(default_factory=lambda: dict.fromkeys(Cause, 0))
    delays: Delays = Delays()


class Tally:
    """Counts what is done. For one thread at a time."""

    def __init__(self) -> None:
        self._refreshes: Counter[Cause] = Counter()
        self._delays: Counter[int] = Counter()
        self._total = 0.0

    def count(self, cause: Cause) -> None:
        """Count a refresh."""
        self._refreshes[cause] += 1

    def observe(self, seconds: float) -> None:
        """Count the time from an event to the snapshot that shows it."""
        self._delays[bisect_left(DELAY_BOUNDS, seconds)] += 1
        self._total += seconds

    def now(self) -> Activity:
        """Tell what has been counted up to now."""
        within = tuple(
            sum(n for bucket, n in self._delays.items() if bucket <= bound)
            for bound in range(len(DELAY_BOUNDS))
        )
        delays = Delays(within, self._delays.total(), self._total)
        return Activity({cause: self._refreshes[cause] for cause in Cause}, delays)
