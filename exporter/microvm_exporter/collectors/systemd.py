"""The units of microvm.nix as systemd has them loaded, and the skipped starts it has forgotten.

A look is one list of all units, as they are at one moment, and then questions on some of them
(`units`), many at a time (`bus`). Signals are heard all the while (`failed_checks`).
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, Final, TypeAlias

from microvm_exporter.collectors import units
from microvm_exporter.collectors.bus import Bus
from microvm_exporter.collectors.bus_terms import (
    BadAddress,
    BusClosed,
    BusError,
    BusTimeout,
    Listed,
    Property,
    Watch,
)
from microvm_exporter.collectors.failed_checks import FailedChecks
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Leftouts, Template, Unit, UnitTable, parse_unit_name

__all__ = ["FILES_ASKED", "SystemdCollector"]

FILES_ASKED: Final = 1000
"""How many units are asked of their files in a look, in turn: 90 µs of PID 1 each."""

_SYSTEM_BUS: Final = "unix:path=/run/dbus/system_bus_socket"
_PATTERNS: Final = tuple(f"{template}*.service" for template in Template)
_UNIT_PATH: Final = Property(
    "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "UnitPath"
)
_WANTS: Final = Property(units.object_path("microvms.target"), units.UNIT, "Wants")
_NOT_THERE: Final = frozenset(
    {"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"}
)

Answers: TypeAlias = dict[str, Any]


class SystemdCollector:
    """Looks at the units of the host that a bus belongs to; None is the system bus.

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
        self._address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS
        self._limit = limit
        self._clock = clock
        self._patience = patience
        self._files_asked = files_asked
        self._checks = FailedChecks(limit * len(Template))
        self._looks = 0
        self._known: Mapping[str, Unit] = {}
        watch = Watch(units.UNIT, units.PATH_PREFIXES, units.CHECK, self._hear)
        self._bus = Bus(self._address, watch, patience)

    def collect(self) -> UnitTable:
        """Look at the units. Raises `CollectorError` when the bus or systemd lets us down."""
        try:
            if not self._open():
                with suppress(BusClosed):  # by a bus that has been restarted, say
                    return self._look()
                self._open()
            return self._look()
        except BusError as error:
            raise CollectorError(self._explain(error)) from error

    def close(self) -> None:
        """End the connection, and a look under way with it. There are no looks afterwards."""
        self._bus.close()

    def _open(self) -> bool:
        try:
            return self._bus.open()
        except BadAddress as error:
            raise CollectorError(
                f"--dbus.address: {self._address!r} is not the address of a bus, as"
                f" {_SYSTEM_BUS!r} is one ({error})"
            ) from error
        except BusTimeout as error:
            raise CollectorError(
                f"the bus at {self._address} accepts connections but did not answer within"
                f" {self._patience:g} s"
            ) from error
        except BusError as error:
            raise CollectorError(
                f"no system bus at {self._address}: is dbus running? ({error})"
            ) from error

    def _explain(self, error: BusError) -> str:
        if isinstance(error, BusTimeout):
            return (
                f"systemd did not answer within {self._patience:g} s on the bus at {self._address}"
            )
        if isinstance(error, BusClosed):
            return f"the connection to the bus at {self._address} broke: {error}"
        if error.name in _NOT_THERE:
            return (
                f"the bus at {self._address} works but org.freedesktop.systemd1 is not on it:"
                f" is it the system bus, and is systemd running? ({error})"
            )
        return (
            f"the bus at {self._address} works but org.freedesktop.systemd1 does not answer:"
            f" {error}"
        )

    def _look(self) -> UnitTable:
        self._looks += 1
        self._checks.begin_look()
        # Each time: it is cheap, and then there is no state of systemd's to keep track of.
        self._bus.subscribe()
        unit_path, wants = self._bus.read((_UNIT_PATH, _WANTS))
        autostarted, declared = _pulled_in(wants or ())
        listed, misnamed = _family(self._bus.list_units(_PATTERNS))
        loaded = {unit.name for unit in listed}
        # A wants link that leads nowhere declares nothing.
        declared = frozenset(vm for vm in declared if f"{Template.INSTALL}{vm}.service" in loaded)
        vms = autostarted | declared | {unit.vm for unit in listed}
        kept = _choose(vms, autostarted | declared, self._limit)
        found, unreadable = self._read([unit for unit in listed if unit.vm in kept])
        self._known = found
        return UnitTable(
            units=found,
            autostarted=autostarted & kept,
            declared=declared & kept,
            unit_path=tuple(unit_path or ()),
            failed_checks=self._checks.end_look(found.values(), loaded, self._clock()),
            left_out=Leftouts(limit=len(vms - kept), name=misnamed, unreadable=unreadable),
        )

    def _read(self, listed: Sequence[Unit]) -> tuple[dict[str, Unit], int]:
        """Ask about units; give those that could be understood, and how many could not."""
        answers: dict[str, Answers] = {unit.name: {} for unit in listed}
        self._ask(answers, self._questions_on_state(listed))
        checked_at = {name: answer.get("ConditionTimestamp") for name, answer in answers.items()}
        on_check = (
            (unit.name, question)
            for unit in listed
            for question in units.questions_on_check(
                unit, self._known.get(unit.name), answers[unit.name]
            )
        )
        self._ask(answers, on_check)
        for name, answer in answers.items():
            units.settle_check(answer, checked_at[name])
        there = [unit for unit in listed if None not in answers[unit.name].values()]
        found = {}
        for unit in there:
            with suppress(TypeError, ValueError):
                known = self._known.get(unit.name)
                found[unit.name] = units.complete(unit, known, answers[unit.name])
        return found, len(there) - len(found)

    def _questions_on_state(self, listed: Sequence[Unit]) -> Iterator[tuple[str, str]]:
        turns = max(1, math.ceil(len(listed) / self._files_asked))
        for index, unit in enumerate(listed):
            files = (index + self._looks) % turns == 0
            for question in units.questions_on_state(unit, self._known.get(unit.name), files=files):
                yield unit.name, question

    def _ask(self, answers: dict[str, Answers], questions: Iterable[tuple[str, str]]) -> None:
        asked = list(questions)
        wanted = [
            Property(units.object_path(unit), units.INTERFACES[name], name) for unit, name in asked
        ]
        for (unit, name), value in zip(asked, self._bus.read(wanted), strict=True):
            answers[unit][name] = value

    def _hear(self, path: str, values: Mapping[str, Any]) -> None:
        with suppress(TypeError, ValueError):  # no signal of systemd's
            if heard := units.read_check(path, values):
                self._checks.hear(*heard)


def _pulled_in(wants: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Give the VMs that microvms.target starts, and those that it installs."""
    by_template = defaultdict(set)
    for template, vm in filter(None, map(parse_unit_name, wants)):
        by_template[template].add(vm)
    return frozenset(by_template[Template.MICROVM]), frozenset(by_template[Template.INSTALL])


def _family(rows: Iterable[Listed]) -> tuple[list[Unit], int]:
    """Give the units of the family by name, and how many carry a name that no VM can have.

    What is not found and inactive is only mentioned by another unit.
    """
    found = []
    misnamed = 0
    for row in sorted(rows):
        if row.load_state == "not-found" and row.active_state == "inactive":
            continue
        parsed = parse_unit_name(row.name)
        if parsed is None:
            misnamed += 1
            continue
        template, vm = parsed
        name, load_state, active_state, sub_state, job = row
        found.append(Unit(name, template, vm, load_state, active_state, sub_state, job))
    return found, misnamed


def _choose(vms: Set[str], preferred: Set[str], limit: int) -> frozenset[str]:
    if len(vms) <= limit:
        return frozenset(vms)
    return frozenset(sorted(vms, key=lambda vm: (vm not in preferred, vm))[:limit])
