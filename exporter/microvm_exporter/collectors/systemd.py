"""The units of microvm.nix as systemd has them loaded, and the skipped starts it has forgotten.

The first look lists all units, and then asks questions on them, while signals are followed already:
what has changed meanwhile is read at its end. From then on a look deals with the units of which
signals told. When systemd has read its units anew, they are listed again, and those that differ are
asked. A resync asks all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from microvm_exporter.collectors import unit_list, units
from microvm_exporter.collectors.bus import Bus
from microvm_exporter.collectors.bus_errors import SYSTEM_BUS, Explainer
from microvm_exporter.collectors.bus_terms import BusClosed, BusError
from microvm_exporter.collectors.file_turns import FileTurns
from microvm_exporter.collectors.missed import Missed
from microvm_exporter.collectors.signals import Heard, Signals
from microvm_exporter.collectors.unit_book import UnitBook
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Cause, Following, UnitTable

__all__ = ["FILES_ASKED", "SystemdCollector"]

FILES_ASKED: Final = 1000
"""How many units are asked of their files in a look, in turn: 90 µs of PID 1 each."""


class _Depth(IntEnum):
    """How much a look deals with: what was told, what the list shows to differ, everything."""

    TOLD = 0
    LISTED = 1
    ALL = 2


class SystemdCollector:
    """Follows the units of the host that a bus belongs to; None is the system bus.

    ``limit`` is the number of VMs whose units are read, declared and autostarted ones first.
    ``clock`` gives Unix seconds; ``patience`` is how many there may be without an answer.
    ``files_asked`` is the number of units that a look asks whether their files changed. All but
    `close` is for one thread at a time.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        limit: int = 5000,
        clock: Callable[[], float] = time.time,
        patience: float = 8.0,
        files_asked: int = FILES_ASKED,
    ) -> None:
        address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
        self._explain = Explainer(address, patience)
        self._signals = Signals()
        prefixes, told = unit_list.PREFIXES, units.TOLD
        self._bus = Bus(address, self._signals, prefixes=prefixes, names=told, patience=patience)
        files = FileTurns(files_asked)
        self._book = UnitBook(self._bus, limit=limit, clock=clock, files=files)
        self._missed: Missed[str] = Missed()
        self._checks: frozenset[str] = frozenset()
        self._events = 0
        self._missed_count = 0
        self._due = _Depth.ALL
        self._put_off = False
        self._made_up = False
        self._failure: str | None = None

    @property
    def following(self) -> Following:
        """How the signals came in up to the last look."""
        return Following(self._due is not _Depth.ALL, self._events, self._missed_count)

    def fileno(self) -> int:
        """Give a descriptor that is readable once there was a signal."""
        return self._signals.fileno()

    def collect(self, cause: Cause, *, files_changed: bool = False) -> UnitTable:
        """Give the units. Raises `CollectorError` when the bus or systemd lets us down.

        ``files_changed`` tells that something in the unit directories may have changed since.
        """
        if files_changed:
            self._book.files_changed()
        heard = self._take(at_once=not self._may_put_off(cause))
        if heard is None:
            self._put_off |= cause is Cause.INTERVAL
            return self._book.table()
        self._put_off = False
        if self._is_for_later(cause, heard):
            return self._unchanged()
        try:
            self._collect(cause, heard)
            self._book.mind(self._checks)
        except BusError as error:
            raise self._failed(self._explain.asking(error)) from error
        except CollectorError:
            raise  # of the opening: all is said
        except Exception as error:
            self._failed(f"unexpected {type(error).__name__}: {error}")  # as it lost what was heard
            raise
        self._failure = None
        self._missed_count = self._missed.count()
        return self._book.table()

    def mind(self, checks: frozenset[str]) -> UnitTable:
        """Give the units with the checks of these, beside those of ``microvm@``, from now on.

        It asks where that is not known yet, after a reload if there is one. Raises
        `CollectorError`.
        """
        self._checks = checks
        if self._signals.is_reloading:
            return self._book.table()
        try:
            self._book.mind(checks)
        except BusError as error:
            raise self._failed(self._explain.asking(error)) from error
        return self._book.table()

    def close(self) -> None:
        """End the connection, and a look under way with it. There are no looks afterwards."""
        self._bus.close()
        self._signals.close()

    def _may_put_off(self, cause: Cause) -> bool:
        """Whether to wait for the end of a reload, as systemd answers nothing meanwhile.

        Only once, when it is time to look: the end may go unheard, or one reload follow another.
        """
        if cause is Cause.RESYNC or self._due is _Depth.ALL:
            return False
        return cause is Cause.EVENT or not self._put_off

    def _is_for_later(self, cause: Cause, heard: Heard) -> bool:
        """Whether what is lost is only made up for when it is time: more than once is too much."""
        if cause is not Cause.EVENT:
            self._made_up = False
            return False
        if self._due is not _Depth.ALL:
            return False
        return self._made_up or (self._failure is not None and not heard.reloaded)

    def _unchanged(self) -> UnitTable:
        if self._failure is not None:
            raise CollectorError(self._failure)
        return self._book.table()

    def _take(self, *, at_once: bool = False) -> Heard | None:
        heard = self._signals.take(at_once=at_once)
        if heard is None:
            return None
        self._events += heard.count
        if heard.lost:
            self._due = _Depth.ALL
            self._missed.clear()
        elif heard.reloaded:
            self._due = max(self._due, _Depth.LISTED)
        return heard

    def _failed(self, why: str) -> CollectorError:
        self._failure = why
        self._due = _Depth.ALL
        self._missed.clear()
        return CollectorError(why)

    def _collect(self, cause: Cause, heard: Heard) -> None:
        is_new = self._open()
        try:
            self._look(cause, heard, is_new=is_new)
        except BusClosed:  # by a bus that has been restarted, say
            if is_new:
                raise
            self._look(cause, heard, is_new=self._open())

    def _open(self) -> bool:
        try:
            return self._bus.open()
        except BusError as error:
            raise self._failed(self._explain.opening(error)) from error

    def _look(self, cause: Cause, heard: Heard, *, is_new: bool) -> None:
        is_told = self._due is _Depth.TOLD and not is_new
        depth = _Depth.ALL if is_new or cause is Cause.RESYNC else self._due
        self._missed.acquit(self._book.follow(heard))
        if depth is _Depth.TOLD and cause is Cause.EVENT:
            return
        # Each time: it is cheap, and then there is no state of systemd's to keep track of.
        asked_at = time.monotonic()
        self._bus.subscribe()
        self._signals.answer(asked_at)
        if depth is _Depth.ALL:
            self._signals.make_up()
        if depth is not _Depth.TOLD or not self._book.has_wants:
            self._book.read_wants()
        if depth is not _Depth.ALL:
            self._book.ask_untold()
        if depth is not _Depth.TOLD:
            self._due = _Depth.TOLD
            self._made_up |= cause is Cause.EVENT and depth is _Depth.ALL
            changed = self._book.relist(every=depth is _Depth.ALL)
            self._catch_up(changed if is_told else frozenset())

    def _catch_up(self, changed: frozenset[str]) -> None:
        """Deal with what was told meanwhile, and suspect of what has changed that it never is.

        What a reload has changed is never told unit by unit, whenever it came.
        """
        heard = self._take() or Heard()
        if self._due is _Depth.TOLD:
            self._missed.suspect(changed)
        self._missed.acquit(self._book.follow(heard))
        if self._due is not _Depth.TOLD:
            self._signals.ring()
