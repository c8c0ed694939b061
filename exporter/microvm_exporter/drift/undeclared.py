"""Rules on what is there although nobody declares it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Host, Site
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.drift.vm import Vm
from microvm_exporter.text import quote

__all__ = [
    "origin_unknown",
    "residual_unit_file",
    "undeclared_running",
    "undeclared_state",
    "undeclared_unit",
    "unused_template",
]


def undeclared_running(site: Site, vm: Vm) -> Iterator[Finding]:
    """``microvm@N`` is active or activating and N is not known."""
    if not vm.known and vm.running and vm.service:
        yield found(
            Kind.UNDECLARED_RUNNING,
            vm.name,
            vm.service.name,
            f"{vm.service.name} is {vm.service.active_state} but {vm.name} is not declared",
            remedies.remove(site, vm),
        )


def undeclared_unit(site: Site, vm: Vm) -> Iterator[Finding]:
    """Units of N are loaded, N is not known and ``microvm@N`` is not running; one per VM."""
    if not vm.known and vm.units and not vm.running:
        states = Counter(unit.active_state for unit in vm.units.values())
        loaded = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        yield found(
            Kind.UNDECLARED_UNIT,
            vm.name,
            f"microvm@{vm.name}.service",
            f"{vm.name} is not declared but has units loaded: {loaded}",
            remedies.remove(site, vm),
        )


def undeclared_state(site: Site, vm: Vm) -> Iterator[Finding]:
    """``STATE/N`` is there, N is not known and not running."""
    if vm.state and not (vm.known or vm.running or vm.unseen or vm.has_flake):
        yield found(
            Kind.UNDECLARED_STATE,
            vm.name,
            vm.state.path,
            f"{vm.state.path} is there but {vm.name} is not declared",
            remedies.remove(site, vm),
        )


def origin_unknown(site: Site, vm: Vm) -> Iterator[Finding]:
    """The same with a ``flake`` file: a removed flake VM, or one made by hand."""
    if vm.state and vm.has_flake and not (vm.known or vm.running or vm.unseen):
        yield found(
            Kind.ORIGIN_UNKNOWN,
            vm.name,
            vm.state.path,
            f"{vm.state.path} has a flake file but no gcroot link: {vm.name} was removed from "
            "the configuration, or made by hand",
            remedies.remove(site, vm),
        )


def residual_unit_file(_: Site, vm: Vm) -> Iterator[Finding]:
    """A unit file, drop-in or wants link names an N that nobody wants, or leads nowhere."""
    wanted = vm.known or vm.autostart
    for file in vm.unit_files:
        if wanted and not file.dangling:
            continue
        why = "leads nowhere" if file.dangling else f"names {vm.name}, which is not declared"
        yield found(
            Kind.RESIDUAL_UNIT_FILE,
            vm.name,
            file.path,
            f"{file.kind} {file.path} {why}",
            (
                "# made by NixOS: switch to the current configuration again; made by hand:",
                f"rm {quote(file.path)} && systemctl daemon-reload",
            ),
        )


def unused_template(host: Host) -> Iterator[Finding]:
    """Templates are installed, and there is no VM that could use them."""
    if any(vm.declared or vm.present or vm.gcroot for vm in host.vms.values()):
        return
    for template in sorted(host.tree.templates):
        yield found(
            Kind.UNUSED_TEMPLATE,
            "",
            template,
            f"{template}.service is installed but no MicroVM is declared or present",
            ("# no MicroVMs wanted here any more: set microvm.host.enable = false and switch",),
        )
