"""A disposable host with MicroVMs: a booted systemd with the unit family of microvm.nix.

What stands on it uses `Machine` (the host), `Fleet` (the MicroVMs on it) and `cases` (how each
bad case comes about, and how it is mended)::

    with Machine.boot() as machine:
        fleet = Fleet(machine)
        fleet.declare(Vm("firewall", taps=("vm-fw",)))
        fleet.switch()
        mend = cases.undeclared_while_running(fleet, "firewall")
        print(machine.run("systemctl", "status", "microvm@firewall").stdout)
        mend()
"""

from __future__ import annotations

from host.fleet import Fleet
from host.layout import BEFORE_SET_BOOTED, ERAS, SHARE_CONDITIONS, TODAY, Era
from host.machine import Machine, MachineError, eventually
from host.vms import Hypervisor, Origin, Vm

__all__ = [
    "BEFORE_SET_BOOTED",
    "ERAS",
    "SHARE_CONDITIONS",
    "TODAY",
    "Era",
    "Fleet",
    "Hypervisor",
    "Machine",
    "MachineError",
    "Origin",
    "Vm",
    "eventually",
]
