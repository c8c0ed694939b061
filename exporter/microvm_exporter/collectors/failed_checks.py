"""The skipped starts that systemd itself has forgotten.

An inactive unit that nothing references is unloaded a moment after its start was skipped, and
what came of its check is lost with it. A signal tells of it just then, or the unit was known when
it went. Both are remembered here, for an hour.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from microvm_exporter.model import FailedCheck, Unit

__all__ = ["FailedChecks"]

_MEMORY: Final = 3600.0  # seconds


class FailedChecks:
    """The failed checks of the last hour, one for each unit, the last ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._noted: dict[str, FailedCheck] = {}

    def note(self, check: FailedCheck) -> None:
        """Remember a check that failed, unless a later one is known, or more of the same."""
        known = self._noted.pop(check.unit, check)
        if (known.at, len(known.conditions)) > (check.at, len(check.conditions)):
            check = known
        self._noted[check.unit] = check
        if len(self._noted) > self._limit:
            del self._noted[next(iter(self._noted))]

    def part(self, unit: Unit) -> None:
        """Remember the check of a unit that is not loaded any more, if it failed."""
        if unit.condition_timestamp > 0 and not unit.condition_result:
            self.note(FailedCheck(unit.name, unit.condition_timestamp, unit.conditions))

    def settle(self, unit: str) -> None:
        """Forget the check of a unit, because a later one held."""
        self._noted.pop(unit, None)

    def remembered(self, loaded: Collection[str], now: float) -> Mapping[str, FailedCheck]:
        """Give the checks of units that are not loaded, by name. ``now`` is in Unix seconds."""
        for name, check in list(self._noted.items()):
            # Also when the clock was set back: nothing is remembered for longer than told.
            if abs(now - check.at) >= _MEMORY:
                del self._noted[name]
        return {name: check for name, check in self._noted.items() if name not in loaded}
