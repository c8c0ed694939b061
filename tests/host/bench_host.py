"""The host that ``make bench`` measures on: many MicroVMs that run, as many TAPs, and no drift."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath

from host.exporter import DECLARATION
from host.fleet import FAMILY, Fleet
from host.layout import TARGET, UNITS
from host.machine import Machine, MachineError
from host.vms import Vm

UNDECLARED_YET = "new0000"
"""The VM that only `DECLARATION_WITH_ONE_MORE` names."""

PATIENCE = 1200.0
"""Seconds for what takes PID 1 some minutes with 5,000 VMs."""

RELOAD = f"""
export SYSTEMD_BUS_TIMEOUT={PATIENCE:.0f}
loaded() {{ systemctl show --property=UnitsLoadTimestampMonotonic; }}
before=$(loaded)
kill -HUP 1
until now=$(loaded) && [ "$now" != "$before" ]; do sleep 0.1; done
"""
"""Has systemd read all units anew, and waits until it has.

`systemctl daemon-reload` gives up after three minutes, whatever SYSTEMD_BUS_TIMEOUT says, and who
asks meanwhile may get no answer: systemd 252 drops its connections while it reads 35,000 units.
"""

DECLARATION_AS_IT_IS = DECLARATION.with_suffix(".as-it-is")
DECLARATION_WITH_ONE_MORE = DECLARATION.with_suffix(".with-one-more")

_BATCH = 200
_WANTED = UNITS / "multi-user.target.wants" / TARGET


@dataclass(frozen=True, slots=True)
class BenchHost:
    """A machine with its VMs, all running, and the numbers of what is on it."""

    machine: Machine
    fleet: Fleet
    units: int
    taps: int

    @property
    def title(self) -> str:
        return f"{len(self.fleet.vms):,} MicroVMs, {self.units:,} units, {self.taps:,} TAPs"

    def mend(self) -> None:
        """Makes good what changes at the same time leave: a start during a stop can fail."""
        self.fleet.settle(PATIENCE)
        self.machine.run("sh", "-c", replace_declaration(DECLARATION_AS_IT_IS))
        for _ in _start(self.fleet):
            pass
        self.fleet.settle(PATIENCE)

    @classmethod
    def fill(cls, machine: Machine, vms: int, say: Callable[[str], None]) -> BenchHost:
        """Declares and starts the VMs. Raises MachineError unless every VM has all and runs.

        Each has a TAP, and all its units are loaded.
        """
        fleet = Fleet(machine)
        _forget_target(machine)
        names = (f"vm{number:04}" for number in range(vms))
        fleet.declare(*(Vm(name, taps=(name,), light=True) for name in names))
        _write_declarations(fleet)
        machine.run("sh", "-c", RELOAD, timeout=PATIENCE)
        for count in accumulate(_start(fleet)):
            say(f"started {count:,} of {vms:,} MicroVMs")
        _remember_target(machine)
        fleet.settle(PATIENCE)
        return cls(machine, fleet, *_count(machine, vms))


def _start(fleet: Fleet) -> Iterator[int]:
    """Starts the VMs, some at a time, and gives how many each time.

    It asks once more if a helper fails, as one of thousands may on a busy machine.
    """
    names = list(fleet.vms)
    for some in (names[begin : begin + _BATCH] for begin in range(0, len(names), _BATCH)):
        try:
            fleet.start(*some, timeout=PATIENCE)
        except MachineError:
            fleet.start(*some, timeout=PATIENCE)
        yield len(some)


def _forget_target(machine: Machine) -> None:
    """Lets go of the target, which has all units of all VMs loaded.

    PID 1 forks for each start, and the more units it has, the more memory a fork has to copy: so
    only those that are started are loaded, and with 1,000 VMs it takes half the time.
    """
    machine.remove(_WANTED)
    machine.systemctl("stop", TARGET)
    machine.systemctl("daemon-reload")


def _remember_target(machine: Machine) -> None:
    """Has it back as after a boot, but without starting what it wants: the VMs have their state."""
    machine.link(_WANTED, UNITS / TARGET)
    machine.run("sh", "-c", RELOAD, timeout=PATIENCE)
    machine.systemctl("start", "--job-mode=ignore-dependencies", TARGET)


def _write_declarations(fleet: Fleet) -> None:
    """The declaration, and two files to replace it by."""
    declaration = fleet.declaration()
    fleet.write_declaration(DECLARATION)
    fleet.write_declaration(DECLARATION_AS_IT_IS)
    first, *_ = declaration["vms"].values()
    declaration["vms"][UNDECLARED_YET] = {**first, "interfaces": []}
    fleet.machine.write(DECLARATION_WITH_ONE_MORE, json.dumps(declaration, indent=1))


def replace_declaration(by: PurePosixPath) -> str:
    """The command that replaces the declaration in one go."""
    return f"cp {by} {DECLARATION}.$$ && mv {DECLARATION}.$$ {DECLARATION}"


def _count(machine: Machine, vms: int) -> tuple[int, int]:
    """Gives the numbers of units and TAPs. Raises MachineError unless every VM has all and runs."""
    listing = machine.systemctl("list-units", "--all", "--plain", "--no-legend", *FAMILY)
    rows = [line.split() for line in listing.splitlines()]
    running = [row for row in rows if row[0].startswith("microvm@") and row[2] == "active"]
    taps = list(machine.path("/sys/class/net").glob("vm*"))
    if (len(running), len(taps)) != (vms, vms) or len(rows) < 7 * vms:
        found = f"{len(running)} run, {len(rows)} units, {len(taps)} TAPs"
        raise MachineError(f"not {vms} MicroVMs of seven units each: {found}")
    return len(rows), len(taps)
