"""Rules on declared and known VMs that are not as they should be."""

from __future__ import annotations

from collections.abc import Iterator

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Host, Vm
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.model import Origin, Symlink, Template
from microvm_exporter.text import quote

__all__ = [
    "dangling_link",
    "missing_state",
    "missing_unit",
    "not_running",
    "outdated",
    "restart_pending",
]


def missing_unit(host: Host) -> Iterator[Finding]:
    """N is declared and systemd has no unit to start it with."""
    for vm in _declared(host):
        if not vm.unseen and (why := _no_unit(host, vm)):
            yield found(
                Kind.MISSING_UNIT,
                vm.name,
                f"microvm@{vm.name}.service",
                f"{vm.name} is declared but {why}",
                (
                    "# import microvm.nixosModules.host, set microvm.host.enable = true, switch; "
                    "then look again:",
                    f"systemctl cat {quote(f'microvm@{vm.name}.service')}",
                ),
            )


def missing_state(host: Host) -> Iterator[Finding]:
    """N is declared and ``STATE/N/current`` is not there."""
    for vm in _declared(host):
        state = vm.state
        if (state and (state.current or not state.readable)) or _beyond_cap(host, vm):
            continue
        path = f"{host.tree.state_dir}/{vm.name}/current"
        yield found(
            Kind.MISSING_STATE,
            vm.name,
            path,
            f"{vm.name} is declared but {path} is not there",
            remedies.reinstall(vm),
        )


def not_running(host: Host) -> Iterator[Finding]:
    """N is autostarted and ``microvm@N`` is down, or waiting for an automatic restart."""
    for vm in host.vms.values():
        if vm.autostart and (vm.stopped or vm.waiting_for_restart):
            unit = f"microvm@{vm.name}.service"
            state = vm.service.active_state if vm.service else "not loaded"
            if vm.waiting_for_restart and vm.service:
                state = f"waiting for an automatic restart (restarted {vm.service.restarts} times)"
            yield found(
                Kind.NOT_RUNNING,
                vm.name,
                unit,
                f"{vm.name} starts automatically but {unit} is {state}",
                (*remedies.look_at_unit(unit), f"systemctl start {quote(unit)}"),
            )


def restart_pending(host: Host) -> Iterator[Finding]:
    """``microvm@N`` is active and runs something other than ``current``."""
    for vm in host.vms.values():
        state = vm.state
        if vm.active and state and state.booted and state.current and not vm.booted_is_current:
            yield found(
                Kind.RESTART_PENDING,
                vm.name,
                f"{state.path}/booted",
                f"{vm.name} still runs {state.booted.target}, current is {state.current.target}",
                ("# restarts the guest:", remedies.restart(vm)),
            )


def outdated(host: Host) -> Iterator[Finding]:
    """``current`` is not the declared runner, although the host's switch installs that."""
    for vm in _declared(host):
        declared, state = vm.declared, vm.state
        if declared is None or declared.origin not in (Origin.DECLARATIVE, Origin.FLAKE):
            continue
        if declared.runner and state and state.current and state.current.target != declared.runner:
            yield found(
                Kind.OUTDATED,
                vm.name,
                state.current.path,
                f"{vm.name} is declared as {declared.runner}, installed is {state.current.target}",
                remedies.reinstall(vm),
            )


def dangling_link(host: Host) -> Iterator[Finding]:
    """A link of a VM leads nowhere, or in a circle."""
    for vm in host.vms.values():
        state = vm.state
        if state:
            for link in (state.current, state.booted, state.toplevel):
                if link and link.dangling:
                    yield _dangling(vm, link)
        if (link := host.tree.gcroots.get(vm.name)) and link.dangling:
            yield _dangling(vm, link)
        # booted is only there while the VM runs, so booted-N of a stopped VM leads nowhere.
        link = host.tree.booted_gcroots.get(vm.name)
        if link and link.dangling and state is None and not _beyond_cap(host, vm):
            yield _dangling(vm, link)


def _dangling(vm: Vm, link: Symlink) -> Finding:
    return found(
        Kind.DANGLING_LINK,
        vm.name,
        link.path,
        f"{link.path} leads to {link.target}, which is not there",
        _relink(vm, link),
    )


def _relink(vm: Vm, link: Symlink) -> tuple[str, ...]:
    state = vm.state
    if vm.known and state and link in (state.current, state.toplevel):
        return remedies.reinstall(vm)
    return (f"rm {quote(link.path)}",)


def _declared(host: Host) -> Iterator[Vm]:
    return (vm for vm in host.vms.values() if vm.declared)


def _no_unit(host: Host, vm: Vm) -> str | None:
    unit = vm.service
    if unit and unit.load_state == "masked":
        return f"{unit.name} is masked"
    if unit and unit.load_state == "loaded":
        return None
    own = f"{Template.MICROVM}{vm.name}.service"
    installed = any(file.unit == own and file.kind == "unit file" for file in host.tree.unit_files)
    if Template.MICROVM in host.tree.templates or installed:
        return None
    return f"systemd has neither {own} nor the template {Template.MICROVM}.service"


def _beyond_cap(host: Host, vm: Vm) -> bool:
    """The state collector may have left the VM out: nothing is known of its directory."""
    return vm.state is None and host.tree.left_out.limit > 0
