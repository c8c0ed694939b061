"""The loaded units, kept by lists and by signals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from microvm_exporter.collectors import unit_list, units
from microvm_exporter.collectors.bus import Bus
from microvm_exporter.collectors.bus_terms import (
    MANAGER,
    MANAGER_PATH,
    Property,
    object_path,
    unit_name,
)
from microvm_exporter.collectors.failed_checks import FailedChecks
from microvm_exporter.collectors.file_turns import FileTurns
from microvm_exporter.collectors.interview import Told, interview
from microvm_exporter.collectors.signals import Heard, Values
from microvm_exporter.model import Leftouts, Template, Unit, UnitTable, parse_unit_name

__all__ = ["UnitBook"]

_UNIT_PATH: Final = Property(MANAGER_PATH, MANAGER, "UnitPath")
_VERSION: Final = Property(MANAGER_PATH, MANAGER, "Version")
_WANTS: Final = Property(object_path("microvms.target"), units.UNIT, "Wants")

_NAMES_MAX: Final = 50
"""How many units are listed by name; PID 1 compares each name with all units that are loaded."""

_STATE: Final = attrgetter("load_state", "active_state", "sub_state", "job")
"""What the list shows of a unit."""

_TOLD: Final = attrgetter(
    *("load_state", "active_state", "sub_state", "job", "condition_result", "condition_timestamp"),
    *("active_enter_timestamp", "result", "exec_main_status", "restarts"),
)
"""What signals tell of a unit, or lead to."""


_BATCH: Final = 1000
"""How many units are asked about at a time: what is known of them only meanwhile adds up."""


class UnitBook:
    """Units by name, as they were last told of. Methods that ask raise `BusError`.

    ``limit`` is the number of VMs whose units are kept, declared and autostarted ones first.
    ``clock`` gives Unix seconds.
    """

    def __init__(
        self, bus: Bus, *, limit: int, clock: Callable[[], float], files: FileTurns
    ) -> None:
        self._bus = bus
        self._limit = limit
        self._clock = clock
        self._files = files
        self._checks = FailedChecks(limit * len(Template))
        self._units: dict[str, Unit] = {}
        self._unit_path: tuple[str, ...] = ()
        self._autostarted: frozenset[str] = frozenset()
        self._installed: frozenset[str] = frozenset()
        self._misnamed: frozenset[str] = frozenset()
        self._unreadable: frozenset[str] = frozenset()
        self._cut: frozenset[str] = frozenset()
        self._minded: frozenset[str] = frozenset()
        self._forgets = False
        self._table = UnitTable()

    @property
    def has_wants(self) -> bool:
        """Whether any VM is wanted, as far as is known."""
        return bool(self._autostarted or self._installed)

    def read_wants(self) -> None:
        """Read what is wanted and where units come from: with each reload it may be another."""
        unit_path, version, wants = self._bus.read((_UNIT_PATH, _VERSION, _WANTS))
        self._unit_path = tuple(unit_path or ())
        self._forgets = units.forgets_restarts(version or "")
        self._autostarted, self._installed = unit_list.pulled_in(wants or ())

    def mind(self, checks: frozenset[str]) -> None:
        """Ask from now on of the checks of these units, and of no others but ``microvm@``.

        There are three or four unmet ones on every healthy VM, which nobody wants to know of.
        """
        if checks == self._minded:
            return
        other, self._minded = checks ^ self._minded, checks
        asked = {name: unit for name, unit in self._units.items() if name in other}
        if asked:
            same = {name: unit for name, unit in self._units.items() if name not in other}
            self._turn_to(same, asked)

    def relist(self, *, every: bool) -> frozenset[str]:
        """List all units, and ask those that differ, or ``every`` one; name those that changed."""
        before, cut = self._units, self._cut
        listed = self._choose(self._family())
        if every:
            self._files.add_share(listed)
            asked, files = listed, self._files.take()
        else:
            asked = {n: unit for n, unit in listed.items() if _moved(unit, before.get(n))}
            files = frozenset()
        same = {name: before[name] for name in listed if name not in asked}
        self._unreadable = frozenset()
        self._turn_to(same, asked, files={*files, *self._in_need()})
        return frozenset(
            name
            for name in before.keys() | self._units.keys()
            if _differ(before.get(name), self._units.get(name))
            and (before.get(name) or self._units[name]).vm not in cut | self._cut
        )

    def follow(self, heard: Heard) -> frozenset[str]:
        """Bring to date the units that signals told of, and give their names."""
        told = self._read(heard.changes)
        for name, values in (*self._read(heard.parting).items(), *told.items()):
            self._note_check(name, values)
        if not (told or heard.new or heard.gone):
            return frozenset()
        there = {name: unit for name, unit in self._units.items() if name not in heard.gone}
        moved = {
            name: unit
            for name in told.keys() & there.keys()
            if (unit := units.follow(there[name], told[name]))
        }
        # One that is gone and not new is no more; one that is new and known has only been reloaded.
        unsure = (heard.new - there.keys()) | (told.keys() - moved.keys() - heard.gone)
        same = {n: unit for n, unit in there.items() if n not in moved and n not in unsure}
        self._misnamed -= heard.gone
        self._unreadable -= heard.gone | told.keys() | heard.new
        if len(same) < len(self._units) or unsure:
            self._turn_to(same, moved | self._look_up(unsure), told=told)
        return frozenset(told.keys() | heard.new | heard.gone)

    def ask_untold(self) -> None:
        """Ask what no signal tells: whether files changed, in turns, and of forgotten restarts."""
        names = {*self._files.take(), *self._in_need()} & self._units.keys()
        asked = [(name, "NeedDaemonReload") for name in names]
        if not self._forgets:
            asked += [(name, "NRestarts") for name, unit in self._units.items() if unit.restarts]
        wanted = [Property(object_path(name), units.INTERFACES[told], told) for name, told in asked]
        changed: dict[str, Unit] = {}
        for (name, told), value in zip(asked, self._bus.read(wanted), strict=True):
            before = changed.get(name, self._units[name])
            after = units.amend(before, told, value)
            if after != before:
                changed[name] = after
        if changed:
            self._units = self._units | changed

    def files_changed(self) -> None:
        """Have all units asked of their files in the looks to come."""
        self._files.add_all(self._units)

    def table(self) -> UnitTable:
        """Give it all as a record: the same one as before while nothing changes."""
        installed = {
            vm for vm in self._installed if f"{Template.INSTALL}{vm}.service" in self._units
        }
        table = UnitTable(
            units=self._units,
            autostarted=self._autostarted - self._cut,
            # A wants link that leads nowhere declares nothing.
            declared=frozenset(installed),
            unit_path=self._unit_path,
            failed_checks=self._checks.remembered(self._units, self._clock()),
            left_out=Leftouts(len(self._cut), len(self._misnamed), len(self._unreadable)),
        )
        if table != self._table:
            self._table = table
        return self._table

    def _family(self) -> dict[str, Unit]:
        """List all, a template at a time: an answer of 7,000 units would cost 15 MB meanwhile.

        What changes between two answers is told by signals.
        """
        found: dict[str, Unit] = {}
        self._misnamed = frozenset()
        for pattern in unit_list.FAMILY:
            found |= self._rows((pattern,))
        return found

    def _rows(self, patterns: Sequence[str]) -> dict[str, Unit]:
        found, misnamed = unit_list.parse_rows(self._bus.list_units(patterns))
        self._misnamed |= misnamed
        return found

    def _look_up(self, names: Collection[str]) -> dict[str, Unit]:
        """Take units from the list that were not known, as far as VMs go."""
        if not names:
            return {}
        # A backslash in a pattern means itself (FNM_NOESCAPE).
        rows = self._rows(tuple(names)) if len(names) <= _NAMES_MAX else self._family()
        known = {unit.vm for unit in self._units.values()}
        return self._choose({n: row for n, row in rows.items() if n in names}, known)

    def _choose(self, rows: Mapping[str, Unit], known: Collection[str] = ()) -> dict[str, Unit]:
        wanted = self._autostarted | self._installed
        vms = wanted.union(known, (unit.vm for unit in rows.values()))
        kept = unit_list.choose(vms, wanted.union(known), self._limit)
        if known:
            kept -= self._cut  # until all are listed again: only some of its units are in question
            vms |= self._cut
        self._cut = vms - kept
        return {name: unit for name, unit in rows.items() if unit.vm in kept}

    def _turn_to(
        self,
        same: Mapping[str, Unit],
        asked: Mapping[str, Unit],
        *,
        told: Told = MappingProxyType({}),
        files: Collection[str] = (),
    ) -> None:
        """Complete those that are to be asked, and take the place of what was known."""
        before, now, left = self._units, dict(same), list(asked.values())
        while left:
            batch, left = left[:_BATCH], left[_BATCH:]
            found, unreadable = interview(
                self._bus,
                batch,
                known=before,
                told=told,
                files=files,
                checks=self._minded,
                forgets=self._forgets,
            )
            self._unreadable |= unreadable
            for name, unit in found.items():
                # One that turns out as it was stays the record that it was.
                known = before.get(name)
                kept = known if known is not None and known == unit else unit
                now[kept.name] = kept
                if unit.condition_result:
                    self._checks.settle(name)
        for name in before.keys() - now.keys():
            self._checks.part(before[name])
        self._units = now

    def _read(self, signals: Mapping[str, Values]) -> dict[str, Mapping[str, Any]]:
        """Read what signals carry, by the names of units that are to be known."""
        told = {}
        for path, values in signals.items():
            name = unit_name(path)
            parsed = parse_unit_name(name)
            if parsed and parsed[1] not in self._cut:
                told[name] = values()
        return told

    def _note_check(self, name: str, told: Mapping[str, Any]) -> None:
        if check := units.read_check(name, told):
            self._checks.note(check)
        elif told.get("ConditionResult"):
            self._checks.settle(name)

    def _in_need(self) -> list[str]:
        return [name for name, unit in self._units.items() if unit.need_daemon_reload]


def _moved(row: Unit, known: Unit | None) -> bool:
    return known is None or _STATE(row) != _STATE(known)


def _differ(one: Unit | None, other: Unit | None) -> bool:
    if one is other:
        return False
    if one is None or other is None:
        return True
    if other.restarts == 0:
        # `systemctl reset-failed` forgets both, and no signal tells unless the unit had failed.
        forgotten = other.result == "success"
        one = replace(one, restarts=0, result="success" if forgotten else one.result)
    return _TOLD(one) != _TOLD(other)
