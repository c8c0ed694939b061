"""The skipped starts that systemd itself has forgotten.

An inactive unit that nothing references is unloaded a moment after its start was skipped, and
what came of its check is lost with it. Signals tell of it just then, and looks tell of the units
that stay for longer. Both are remembered here, for an hour.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from typing import Final

from microvm_exporter.model import FailedCheck, Unit

__all__ = ["FailedChecks"]

_MEMORY: Final = 3600.0  # seconds


class FailedChecks:
    """The failed checks of the last hour, one for each unit, the last ``limit`` of them.

    A signal is newer than whatever a look brings that began before it, so it is the signal that
    counts then. `hear` may be called at any time, in any thread.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._look = 0
        # By unit: during which look it was noted, and what. None, that a check held, is of no
        # use but to tell a look under way that what it saw is over.
        self._noted: dict[str, tuple[int, FailedCheck | None]] = {}

    def hear(self, unit: str, check: FailedCheck | None) -> None:
        """Note a check that a signal tells of: a failed one, or None when it held."""
        with self._lock:
            self._note(unit, check)

    def begin_look(self) -> None:
        """Take what is heard from now on for newer than what the look brings."""
        with self._lock:
            self._look += 1

    def end_look(
        self, units: Iterable[Unit], loaded: Collection[str], now: float
    ) -> dict[str, FailedCheck]:
        """Note what a look brought; give the checks of units that are not loaded, by name."""
        with self._lock:
            for unit in units:
                if self._noted.get(unit.name, (0, None))[0] < self._look:
                    self._see(unit)
            self._forget(now)
            return {
                name: check
                for name, (_, check) in self._noted.items()
                if check and name not in loaded
            }

    def _see(self, unit: Unit) -> None:
        if unit.condition_result:
            self._noted.pop(unit.name, None)
        elif unit.condition_timestamp > 0:
            check = FailedCheck(unit.name, unit.condition_timestamp, unit.conditions)
            self._note(unit.name, check)

    def _note(self, unit: str, check: FailedCheck | None) -> None:
        self._noted.pop(unit, None)
        self._noted[unit] = (self._look, check)
        if len(self._noted) > self._limit:
            del self._noted[next(iter(self._noted))]

    def _forget(self, now: float) -> None:
        for name, (_, check) in list(self._noted.items()):
            # Also when the clock was set back: nothing is remembered for longer than told.
            if check is None or abs(now - check.at) >= _MEMORY:
                del self._noted[name]
