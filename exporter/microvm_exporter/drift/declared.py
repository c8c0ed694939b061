"""Rules on declared and known VMs that are not as they should be."""

from __future__ import annotations

from collections.abc import Iterator

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Host, Vm
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.model import Origin, Symlink, Template, UnitFileKind
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
    own = {file.unit for file in host.tree.unit_files if file.kind is UnitFileKind.UNIT}
    for vm in _declared(host):
        unit = f"{Template.MICROVM}{vm.name}.service"
        if vm.service and vm.service.load_state not in ("loaded", "not-found"):
            why = f"{unit} is {vm.service.load_state}"
        elif _is_provided(host, vm) or unit in own:
            continue
        else:
            why = f"systemd has neither {unit} nor the template {Template.MICROVM}.service"
        yield found(
            Kind.MISSING_UNIT,
            vm.name,
            unit,
            f"{vm.name} is declared but {why}",
            _provide_unit(vm, unit),
        )


def missing_state(host: Host) -> Iterator[Finding]:
    """N is declared and ``STATE/N/current`` is not there."""
    for vm in _declared(host):
        state = vm.state
        if (state and (state.current or not state.readable)) or vm.state_unseen:
            continue
        path = f"{host.tree.state_dir}/{vm.name}/current"
        yield found(
            Kind.MISSING_STATE,
            vm.name,
            path,
            f"{vm.name} is declared but {path} is not there",
            remedies.mend(host, vm),
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
                (*remedies.look_at_unit(unit), remedies.start(vm))
                if vm.known
                else remedies.remove(host, vm),
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
                remedies.restart(vm),
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
                remedies.mend(host, vm),
            )


def dangling_link(host: Host) -> Iterator[Finding]:
    """A link of a VM leads nowhere, or in a circle."""
    tree = host.tree
    for vm in host.vms.values():
        state = vm.state
        links = [tree.gcroots.get(vm.name)]
        if state is not None:
            links += [state.current, state.booted, state.toplevel]
        elif not vm.state_unseen:
            # STATE/N/booted and STATE/N/old come and go, and what keeps them leads nowhere then.
            links += [tree.booted_gcroots.get(vm.name), tree.old_gcroots.get(vm.name)]
        for link in links:
            if link and link.dangling:
                yield _dangling(host, vm, link)


def _dangling(host: Host, vm: Vm, link: Symlink) -> Finding:
    is_loop = link.target in (link.path, link.path.rpartition("/")[2])
    where = "is a link to itself" if is_loop else f"leads to {link.target}, which is not there"
    return found(
        Kind.DANGLING_LINK, vm.name, link.path, f"{link.path} {where}", _relink(host, vm, link)
    )


def _relink(host: Host, vm: Vm, link: Symlink) -> tuple[str, ...]:
    """Each start makes ``booted`` anew; a gcroot is worth what it leads to, the directory."""
    stale = vm.state and link == vm.state.booted and not (vm.active or vm.autostart)
    if vm.state is None or (vm.known and stale):
        return (f"rm {quote(link.path)}",)
    return remedies.mend(host, vm)


def _declared(host: Host) -> Iterator[Vm]:
    return (vm for vm in host.vms.values() if vm.declared)


def _is_provided(host: Host, vm: Vm) -> bool:
    is_loaded = vm.service is not None and vm.service.load_state == "loaded"
    return is_loaded or vm.unseen or Template.MICROVM in host.tree.templates


def _provide_unit(vm: Vm, unit: str) -> tuple[str, ...]:
    if vm.service and vm.service.load_state == "masked":
        return (
            "# masked by NixOS (enable = false): take that out, and switch; else:",
            f"systemctl unmask {quote(unit)}",
        )
    return (
        "# import microvm.nixosModules.host, set microvm.host.enable = true, and switch; then:",
        f"systemctl --no-pager cat {quote(unit)}",
    )
