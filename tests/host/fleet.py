"""The MicroVMs of a machine: declared, installed, started, updated, removed, as on a NixOS host."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from host import layout
from host.layout import GCROOTS, STATE, STORE, TODAY, UNITS, Era
from host.machine import Machine, eventually
from host.runners import UPLINK, add_tap, write_common, write_runner
from host.vms import Origin, Vm

_NET = "/sys/class/net"
_UNIT_FOLDERS = (
    UNITS,
    PurePosixPath("/etc/systemd/system.control"),
    PurePosixPath("/run/systemd/system"),
)
_FLAKES = {
    Origin.FLAKE: STORE / "f1akesource000000000000000000000-source",
    Origin.DEPLOYED: "git+https://example.org/machines",
    Origin.IMPERATIVE: "git+file:///etc/nixos",
}
"""What is in `STATE/N/flake`, by the origins that have one."""

FAMILY = ("microvm@*.service", "microvm-*@*.service", "install-microvm-*.service")
"""Patterns of all units that a VM can have."""


class Fleet:
    """The VMs of one machine, on the unit family of one era. `reset` gives the machine back empty.

    The host's files change at once, as soon as a method returns; systemd learns of them by
    `switch`, `undeclare`, `update`, or a `systemctl daemon-reload` of one's own.
    """

    def __init__(self, machine: Machine, era: Era = TODAY) -> None:
        """Installs the host module of `era`, without any VM."""
        self.machine = machine
        self.era = era
        self.vms: dict[str, Vm] = {}
        """What is declared, and what was made by hand and is not removed."""
        self._microvm, self._kvm = machine.ids("microvm")
        os.chown(machine.path(STATE), self._microvm, self._kvm)
        self._first_links = self._link_names()
        self.install_module()
        machine.systemctl("start", layout.TARGET)

    def install_module(self) -> None:
        """Writes what the host module brings, whatever the VMs, and reloads systemd."""
        layout.install(self.machine, self.era)
        write_common(self.machine)
        self._write_target()
        self.machine.systemctl("daemon-reload")

    def declare(self, *vms: Vm) -> None:
        """Adds VMs: builds their runners and writes their units, or their state if made by hand.

        A VM with an install unit has no state until `switch`, unless it is `light`.
        """
        for vm in vms:
            self.vms[vm.name] = vm
            write_runner(self.machine, vm, vm.runner_era or self.era)
            if vm.origin.is_declared:
                self._write_units(vm)
            if vm.light or not vm.origin.is_declared:
                self._write_state(vm)
        self._write_target()
        self._add_links(vms)

    def undeclare(self, *names: str) -> None:
        """Takes VMs out of the configuration, as a switch does, and reloads systemd.

        Their unit files go, and their names in `autostart`. Their state stays; who runs, runs on.
        """
        for name in names:
            self._remove_units(name)
            del self.vms[name]
        self._write_target()
        self.machine.systemctl("daemon-reload")

    def switch(self, timeout: float = 120.0) -> None:
        """Makes systemd read the units, install what is declared and start what is to start."""
        self.machine.systemctl("daemon-reload")
        self.machine.systemctl("start", layout.TARGET, timeout=timeout)

    def start(self, *names: str, timeout: float = 120.0) -> None:
        """Starts VMs by one `systemctl start`; that a condition is unmet is no error of it."""
        self._systemctl("start", names, timeout)

    def stop(self, *names: str, timeout: float = 120.0) -> None:
        """Stops VMs by one `systemctl stop`, and waits for their helpers, as that does not."""
        self._systemctl("stop", names, timeout)
        self.settle(timeout)

    def restart(self, *names: str) -> None:
        """Restarts VMs, or starts them; their helpers restart with them."""
        self._systemctl("restart", names, 120)

    def settle(self, timeout: float = 60.0) -> None:
        """Waits until systemd has no job left to do."""
        no_jobs = ("list-jobs", "--no-legend")
        eventually("no jobs", lambda: not self.machine.systemctl(*no_jobs).strip(), timeout)

    def update(self, name: str) -> Vm:
        """Builds a VM anew and installs that, as its owner would; a running one is not restarted.

        Returns the VM as it is now.
        """
        old = self.vms[name]
        new = self.rebuild(name)
        if new.origin in (Origin.DECLARATIVE, Origin.FLAKE):
            self.machine.systemctl("start", f"install-microvm-{name}.service")
        else:
            self._point_current(new)
        if new.origin is Origin.INSTALLED_ON_HOST:
            self.machine.link(new.state / "old", old.runner)
        return new

    def rebuild(self, name: str) -> Vm:
        """Builds a VM anew and declares the result, but installs nothing; returns the new VM."""
        vm = replace(self.vms[name], build=self.vms[name].build + 1)
        self.vms[name] = vm
        write_runner(self.machine, vm, vm.runner_era or self.era)
        if vm.origin.is_declared:
            self._write_units(vm)
            self.machine.systemctl("daemon-reload")
        return vm

    def reinstall(self, name: str) -> None:
        """Puts runner and state of a VM back as they were, forgets its failures, restarts it."""
        vm = self.vms[name]
        write_runner(self.machine, vm, vm.runner_era or self.era)
        self._write_state(vm)
        self.reset_failed(name)
        self.restart(name)

    def reset_failed(self, name: str) -> None:
        """Makes systemd forget the failures of a VM's units."""
        self.machine.systemctl("reset-failed", f"microvm*@{name}.service")

    def declaration(self, imperative: Iterable[str] = ()) -> dict[str, Any]:
        """What is declared, in the format of the declaration file."""
        declared = (vm for vm in self.vms.values() if vm.origin.is_declared)
        return {
            "version": 1,
            "state_dir": str(STATE),
            "vms": {vm.name: _declaration(vm) for vm in declared},
            "imperative": sorted(imperative),
        }

    def write_declaration(
        self, path: str | PurePosixPath, imperative: Iterable[str] = ()
    ) -> PurePosixPath:
        """Writes the declaration file into the machine; returns its path there."""
        self.machine.write(path, json.dumps(self.declaration(imperative), indent=1))
        return PurePosixPath(path)

    def units(self, name: str) -> list[str]:
        """All units that a VM has by the templates."""
        return self.era.units(name)

    def delete_links(self, *names: str) -> None:
        """Deletes network links, as far as they are there."""
        commands = "\n".join(f"link delete {name}" for name in names)
        self.machine.run("ip", "-force", "-batch", "-", input=commands, check=False, timeout=300)

    def reset(self) -> None:
        """Stops and removes everything: VMs, units, state, store, links, and what has failed."""
        self.machine.systemctl("stop", *FAMILY, f"{layout.TARGET}*")
        self.delete_links(*self._link_names() - self._first_links)
        self._remove(PurePosixPath("/dev"), "tap[0-9]*")
        for folder in (STATE, GCROOTS, STORE):
            self._remove(folder, "*")
        for folder in _UNIT_FOLDERS:
            for pattern in (*FAMILY, f"{layout.TARGET}*"):
                self._remove(folder, pattern.replace(".service", ".service*"))
        self.machine.remove(UNITS / "multi-user.target.wants" / layout.TARGET)
        self.vms.clear()
        self.machine.systemctl("daemon-reload")
        self.machine.systemctl("reset-failed")

    def _systemctl(self, verb: str, names: Iterable[str], timeout: float) -> None:
        units = [f"microvm@{name}.service" for name in names]
        self.machine.systemctl(verb, *units, timeout=timeout)

    def _write_target(self) -> None:
        layout.write_target(self.machine, [vm.name for vm in self.vms.values() if vm.autostart])

    def _write_units(self, vm: Vm) -> None:
        unit = f"install-microvm-{vm.name}.service"
        script = STORE / f"{vm.runner.name[:32]}-unit-script-install-microvm-{vm.name}-start"
        once = vm.origin is Origin.DEPLOYED
        self.machine.write(script, _install_script(vm), 0o755)
        self.machine.write(UNITS / unit, layout.install_unit(vm.name, self.era, script, once))
        self.machine.link(UNITS / f"{layout.TARGET}.wants" / unit, f"../{unit}")
        for template in layout.DROP_INS:
            text = layout.drop_in(template, vm.toplevel)
            self.machine.write(UNITS / f"{template}@{vm.name}.service.d/overrides.conf", text)

    def _remove_units(self, name: str) -> None:
        unit = f"install-microvm-{name}.service"
        self.machine.remove(UNITS / unit)
        self.machine.remove(UNITS / f"{layout.TARGET}.wants" / unit)
        for template in layout.DROP_INS:
            self.machine.remove(UNITS / f"{template}@{name}.service.d")

    def _write_state(self, vm: Vm) -> None:
        """What is there of a VM whose state no install unit makes."""
        folder = self.machine.path(vm.state)
        folder.mkdir(exist_ok=True)
        made_by_root = vm.origin is Origin.IMPERATIVE
        os.chown(folder, 0 if made_by_root else self._microvm, self._kvm)
        folder.chmod(0o775 if made_by_root else 0o755)
        self._point_current(vm)
        if vm.origin in _FLAKES:
            self.machine.write(vm.state / "flake", f"{_FLAKES[vm.origin]}\n")
        if vm.origin is Origin.DECLARATIVE:
            self.machine.link(vm.state / "toplevel", vm.toplevel)
        if not vm.origin.is_declared:
            self._write_gcroots(vm)

    def _write_gcroots(self, vm: Vm) -> None:
        """The one for `booted` leads nowhere while the VM is stopped, as it does on any host."""
        self.machine.link(GCROOTS / vm.name, vm.state / "current")
        self.machine.link(GCROOTS / f"booted-{vm.name}", vm.state / "booted")
        if vm.origin is Origin.INSTALLED_ON_HOST:
            self.machine.link(GCROOTS / f"old-{vm.name}", vm.state / "old")

    def _point_current(self, vm: Vm) -> None:
        self.machine.link(vm.state / "current", vm.runner)
        if vm.origin.is_declared:  # others are linked by Nix, as root
            current = self.machine.path(vm.state / "current")
            os.chown(current, self._microvm, self._kvm, follow_symlinks=False)

    def _add_links(self, vms: Iterable[Vm]) -> None:
        """What the VMs find: the link below their macvtaps, and the TAPs of light ones."""
        commands = []
        if any(vm.macvtaps for vm in vms) and not self.machine.path(f"{_NET}/{UPLINK}").exists():
            commands += [f"link add {UPLINK} type bridge", f"link set {UPLINK} up"]
        for vm in vms:
            commands += [line for tap in vm.taps if vm.light for line in add_tap(vm, tap)]
        self.machine.run("ip", "-batch", "-", input="\n".join(commands), timeout=300)

    def _link_names(self) -> set[str]:
        return {link.name for link in self.machine.path(_NET).iterdir()}

    def _remove(self, folder: PurePosixPath, pattern: str) -> None:
        for path in self.machine.path(folder).glob(pattern):
            self.machine.remove(folder / path.name)


def _declaration(vm: Vm) -> dict[str, Any]:
    """A deployed VM is declared with the runner that it was first installed with."""
    declared = replace(vm, build=0) if vm.origin is Origin.DEPLOYED else vm
    taps = [{"type": "tap", "id": tap} for tap in vm.taps]
    macvtaps = [{"type": "macvtap", "id": macvtap} for macvtap in vm.macvtaps]
    return {
        "origin": str(vm.origin),
        "autostart": vm.autostart,
        "hypervisor": str(vm.hypervisor),
        "runner": str(declared.runner),
        "interfaces": taps + macvtaps,
    }


def _install_script(vm: Vm) -> str:
    lines = [
        "#!/bin/sh -e",
        f"mkdir -p {vm.state}",
        f"cd {vm.state}",
        f"ln -sTf {vm.runner} current",
        "chown -h microvm:kvm . current",
    ]
    if vm.origin is Origin.DECLARATIVE:
        lines.append(f"ln -sTf {vm.toplevel} toplevel")
    else:
        lines += [f"echo '{_FLAKES[vm.origin]}' > flake", "chown -h microvm:kvm flake"]
    return "\n".join(lines) + "\n"
