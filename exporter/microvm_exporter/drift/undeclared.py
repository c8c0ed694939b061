"""Rules on what is there although nobody declares it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Host, Vm
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.text import quote

__all__ = [
    "origin_unknown",
    "residual_unit_file",
    "undeclared_running",
    "undeclared_state",
    "undeclared_unit",
    "unused_template",
]


def undeclared_running(host: Host) -> Iterator[Finding]:
    """``microvm@N`` is active or activating and N is not known."""
    for vm in _unknown(host):
        if vm.running and vm.service:
            yield found(
                Kind.UNDECLARED_RUNNING,
                vm.name,
                vm.service.name,
                f"{vm.service.name} is {vm.service.active_state} but {vm.name} is not declared",
                remedies.remove(host, vm),
            )


def undeclared_unit(host: Host) -> Iterator[Finding]:
    """Units of N are loaded, N is not known and ``microvm@N`` is not running; one a VM."""
    for vm in _unknown(host):
        if vm.units and not vm.running:
            states = Counter(unit.active_state for unit in vm.units.values())
            loaded = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
            yield found(
                Kind.UNDECLARED_UNIT,
                vm.name,
                f"microvm@{vm.name}.service",
                f"{vm.name} is not declared but {len(vm.units)} of its units are loaded: {loaded}",
                remedies.remove(host, vm),
            )


def undeclared_state(host: Host) -> Iterator[Finding]:
    """``STATE/N`` is there, N is not known and not running."""
    for vm in _unknown(host):
        if vm.state and not (vm.running or vm.unseen or vm.has_flake):
            yield found(
                Kind.UNDECLARED_STATE,
                vm.name,
                vm.state.path,
                f"{vm.state.path} is there but {vm.name} is not declared",
                remedies.remove(host, vm),
            )


def origin_unknown(host: Host) -> Iterator[Finding]:
    """The same with a ``flake`` file: a removed flake VM, or one that was made by hand."""
    for vm in _unknown(host):
        if vm.state and vm.has_flake and not (vm.running or vm.unseen):
            yield found(
                Kind.ORIGIN_UNKNOWN,
                vm.name,
                vm.state.path,
                f"{vm.state.path} has a flake file but no gcroot link: {vm.name} was removed from "
                "the configuration, or made by hand",
                remedies.remove(host, vm),
            )


def residual_unit_file(host: Host) -> Iterator[Finding]:
    """A unit file, drop-in or wants link names an N that nobody wants, or leads nowhere."""
    for file in host.tree.unit_files:
        vm = host.vm(file.vm)
        wanted = vm.known or vm.autostart
        if wanted and not file.dangling:
            continue
        why = "leads nowhere" if file.dangling else f"names {file.vm}, which is not declared"
        yield found(
            Kind.RESIDUAL_UNIT_FILE,
            file.vm,
            file.path,
            f"{file.kind} {file.path} {why}",
            (
                "# made by NixOS: switch to the current configuration again; made by hand:",
                f"rm {quote(file.path)} && systemctl daemon-reload",
            ),
        )


def unused_template(host: Host) -> Iterator[Finding]:
    """Templates are installed, and there is no VM that could use them."""
    if any(vm.declared or vm.present or vm.name in host.tree.gcroots for vm in host.vms.values()):
        return
    for template in sorted(host.tree.templates):
        yield found(
            Kind.UNUSED_TEMPLATE,
            "",
            template,
            f"{template}.service is installed but no MicroVM is declared or present",
            ("# no MicroVMs wanted here any more: set microvm.host.enable = false and switch",),
        )


def _unknown(host: Host) -> Iterator[Vm]:
    return (vm for vm in host.vms.values() if not vm.known)
