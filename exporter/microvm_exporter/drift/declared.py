"""Rules on declared and known VMs that are not as they should be."""

from __future__ import annotations

from collections.abc import Iterator

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Site
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.drift.vm import Vm
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


def missing_unit(site: Site, vm: Vm) -> Iterator[Finding]:
    """N is declared and systemd has no unit to start it with."""
    if not vm.declared:
        return
    unit = f"{Template.MICROVM}{vm.name}.service"
    if vm.service and vm.service.load_state not in ("loaded", "not-found"):
        why = f"{unit} is {vm.service.load_state}"
    elif _is_provided(site, vm, unit):
        return
    else:
        why = f"systemd has neither {unit} nor the template {Template.MICROVM}.service"
    yield found(
        Kind.MISSING_UNIT,
        vm.name,
        unit,
        f"{vm.name} is declared but {why}",
        _provide_unit(vm, unit),
    )


def missing_state(site: Site, vm: Vm) -> Iterator[Finding]:
    """N is declared and ``STATE/N/current`` is not there."""
    state = vm.state
    if not vm.declared or (state and (state.current or not state.readable)) or vm.state_unseen:
        return
    path = f"{site.state_dir}/{vm.name}/current"
    yield found(
        Kind.MISSING_STATE,
        vm.name,
        path,
        f"{vm.name} is declared but {path} is not there",
        remedies.mend(site, vm),
    )


def not_running(site: Site, vm: Vm) -> Iterator[Finding]:
    """N is autostarted and ``microvm@N`` is down, or waiting for an automatic restart."""
    if vm.autostart and (vm.stopped or vm.waiting_for_restart):
        unit = f"microvm@{vm.name}.service"
        state = vm.service.active_state if vm.service else "not loaded"
        if vm.waiting_for_restart and vm.service:
            state = f"waiting for an automatic restart ({vm.service.restarts} so far)"
        yield found(
            Kind.NOT_RUNNING,
            vm.name,
            unit,
            f"{vm.name} starts automatically but {unit} is {state}",
            remedies.get_running(vm) if vm.known else remedies.remove(site, vm),
        )


def restart_pending(_: Site, vm: Vm) -> Iterator[Finding]:
    """``microvm@N`` is active and runs something other than ``current``."""
    state = vm.state
    if vm.active and state and state.booted and state.current and not vm.booted_is_current:
        yield found(
            Kind.RESTART_PENDING,
            vm.name,
            f"{state.path}/booted",
            f"{vm.name} still runs {state.booted.target} but current is {state.current.target}",
            remedies.restart(vm),
        )


def outdated(site: Site, vm: Vm) -> Iterator[Finding]:
    """``current`` is not the declared runner, although the host's switch installs it."""
    declared, state = vm.declared, vm.state
    if declared is None or declared.origin not in (Origin.DECLARATIVE, Origin.FLAKE):
        return
    if declared.runner and state and state.current and state.current.target != declared.runner:
        yield found(
            Kind.OUTDATED,
            vm.name,
            state.current.path,
            f"{vm.name} is declared as {declared.runner} but installed is {state.current.target}",
            remedies.mend(site, vm),
        )


def dangling_link(site: Site, vm: Vm) -> Iterator[Finding]:
    """A link of a VM leads nowhere, or in a circle."""
    state = vm.state
    links = [vm.gcroot]
    if state is not None:
        links += [state.current, state.booted, state.toplevel]
    elif not vm.state_unseen:
        # STATE/N/booted and STATE/N/old come and go, and what keeps them leads nowhere then.
        links += [vm.booted_gcroot, vm.old_gcroot]
    for link in links:
        if link and link.dangling:
            yield _dangling(site, vm, link)


def _dangling(site: Site, vm: Vm, link: Symlink) -> Finding:
    is_loop = link.target in (link.path, link.path.rpartition("/")[2])
    where = "is a link to itself" if is_loop else f"leads to {link.target}, which is not there"
    return found(
        Kind.DANGLING_LINK, vm.name, link.path, f"{link.path} {where}", _relink(site, vm, link)
    )


def _relink(site: Site, vm: Vm, link: Symlink) -> tuple[str, ...]:
    """Each start makes ``booted`` anew; a gcroot is worth what it leads to, the directory."""
    remove = f"rm {quote(link.path)}"
    if vm.state is None:
        # It may be all that tells of the VM: not for pasting.
        mount = "# first mount what its directory is on, if it is not; only of a VM that is gone:"
        return (mount, f"# {remove}")
    if vm.known and link == vm.state.booted and not (vm.active or vm.autostart):
        return (remove,)
    return remedies.mend(site, vm)


def _is_provided(site: Site, vm: Vm, unit: str) -> bool:
    is_loaded = vm.service is not None and vm.service.load_state == "loaded"
    return (
        is_loaded
        or vm.unseen
        or Template.MICROVM in site.templates
        or any(file.kind is UnitFileKind.UNIT and file.unit == unit for file in vm.unit_files)
    )


def _provide_unit(vm: Vm, unit: str) -> tuple[str, ...]:
    if vm.service and vm.service.load_state == "masked":
        return (
            "# masked by NixOS (enable = false): take that out, and switch; else:",
            f"systemctl unmask --runtime {quote(unit)}",
        )
    return (
        "# import microvm.nixosModules.host, set microvm.host.enable = true, and switch; then:",
        f"systemctl --no-pager cat {quote(unit)}",
    )
