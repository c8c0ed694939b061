"""What happens in the history: six hosts, and eight hours of their lives.

Minutes are counted from the beginning. Each kind of trouble comes and goes somewhere, and some of
it is there at the end, so that a dashboard which is opened then has something to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from microvm_exporter.model import (
    Collector,
    InterfaceType,
    Origin,
    Template,
    UnitFile,
    UnitFileKind,
)
from microvm_simulator.host import SimulatedHost
from world import World, macvtap, make_unit, runner_path, tap, unmet

__all__ = ["BUILDERS", "DOWN", "GONE", "STORY", "Action"]

Action = Callable[[SimulatedHost, float], None]
"""Something that happens to a host at a time (Unix seconds)."""

DOWN: Final = {"cedar": (230, 252)}
"""When an exporter is down: from and to which minute its scrapes fail."""

GONE: Final = {"oak": 415}
"""From which minute a host is in service discovery no more."""

_UNITS: Final = "/etc/systemd/system"


# ------------------------------------------------------------------------------ how they begin


def _alder() -> World:
    """The one with most to tell: fifteen VMs of all origins, and leftovers that are old."""
    world = World()
    for name in ("web", "api", "firewall", "mail.internal", "db", "cache", "queue", "metrics"):
        world.add(name, interfaces=(tap(f"vm-{name[:8]}"),))
    world.add("ci", Origin.FLAKE, interfaces=(tap("vm-ci"),))
    world.add("builder", Origin.FLAKE, interfaces=(macvtap("mv-builder"),))
    world.add("wiki", Origin.DEPLOYED, interfaces=(tap("vm-wiki"),))
    world.add("chat", Origin.DEPLOYED, interfaces=(tap("vm-chat"),))
    world.add("scratch", Origin.IMPERATIVE, interfaces=(tap("vm-scratch"),), autostart=False)
    world.add("spare", running=False, autostart=False)
    world.add("old-backup", running=False, autostart=False)
    world.undeclare("old-backup")
    file = f"{_UNITS}/microvm@old-dns.service.d/override.conf"
    world.unit_files.append(
        UnitFile(file, UnitFileKind.DROP_IN, "microvm@old-dns.service", "old-dns")
    )
    _hypervisors(world, cache="cloud-hypervisor", queue="firecracker", ci="crosvm")
    return world


def _birch() -> World:
    world = World()
    for name in ("web", "api", "db", "grafana", "loki", "registry", "proxy"):
        world.add(name, interfaces=(tap(f"vm-{name}"),))
    return world.add("nightly", Origin.FLAKE, running=False, autostart=False)


def _cedar() -> World:
    world = World()
    for name in ("dns1", "dns2", "ntp", "radius", "vpn.edge"):
        world.add(name, Origin.DEPLOYED, interfaces=(tap(f"vm-{name[:6]}"),))
    return world.add("lab", Origin.IMPERATIVE, interfaces=(macvtap("mv-lab"),), autostart=False)


def _elm() -> World:
    world = World()
    for number in range(1, 11):
        world.add(f"worker-{number}", interfaces=(tap(f"vm-worker{number}"),))
    _hypervisors(world, **{f"worker-{n}": "cloud-hypervisor" for n in range(1, 11)})
    return world


def _fir() -> World:
    world = World()
    for number in range(1, 13):
        world.add(f"tenant-{number:02}", interfaces=(tap(f"vm-tenant{number:02}"),))
    return world


def _oak() -> World:
    world = World()
    for name in ("edge-1", "edge-2", "edge-3", "edge-4"):
        world.add(name, interfaces=(tap(f"vm-{name}"),))
    return world


def _hypervisors(world: World, **by_vm: str) -> None:
    for vm, hypervisor in by_vm.items():
        world.declared[vm] = replace(world.declared[vm], hypervisor=hypervisor)


BUILDERS: Final[Mapping[str, Callable[[], World]]] = {
    "alder": _alder,
    "birch": _birch,
    "cedar": _cedar,
    "elm": _elm,
    "fir": _fir,
    "oak": _oak,
}
"""The hosts by name, as they are at the beginning."""


# ------------------------------------------------------------------------------ what can happen


def _undeclare(*vms: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        for vm in vms:
            host.undeclare(vm)

    return happen


def _declare_again(*vms: str) -> Action:
    """The next switch has them again: the records of a fresh host."""

    def happen(host: SimulatedHost, _: float) -> None:
        world, fresh = host.world, BUILDERS[host.name]()
        for vm in vms:
            world.declared[vm] = fresh.declared[vm]
            world.autostarted |= {vm} & fresh.autostarted
            world.unit_files += [file for file in fresh.unit_files if file.vm == vm]
            install = f"{Template.INSTALL}{vm}.service"
            world.units[install] = fresh.units[install]
        host.changed(Collector.DECLARATION, Collector.SYSTEMD, Collector.STATE)

    return happen


def _update(*vms: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        for vm in vms:
            host.update(vm, runner_path(vm, 2))

    return happen


def _declare_runner(vm: str, build: int) -> Action:
    return lambda host, _: host.declare_runner(vm, runner_path(vm, build))


def _stop(*vms: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        for vm in vms:
            host.stop(vm)

    return happen


def _start(*vms: str) -> Action:
    def happen(host: SimulatedHost, now: float) -> None:
        for vm in vms:
            host.start(vm, now)

    return happen


def _restart(vm: str) -> Action:
    return lambda host, now: host.restart(vm, now)


def _crash(vm: str) -> Action:
    return lambda host, now: host.crash(vm, now)


def _crash_loop(vm: str) -> Action:
    return lambda host, _: host.crash_loop(vm)


def _lose_tap(device: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        del host.world.links[device]
        host.changed(Collector.LINKS)

    return happen


def _make_tap(device: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        host.world.link(device)
        host.changed(Collector.LINKS)

    return happen


def _remove_in_one_go(vm: str) -> Action:
    """``systemctl stop microvm@N && rm -rf STATE/N``: set-booted fails, and the TAP leaks."""

    def happen(host: SimulatedHost, _: float) -> None:
        world = host.world
        runner = world.vms[vm].current_runner
        assert runner
        taps = {
            interface.id: world.links[interface.id]
            for interface in runner.interfaces
            if interface.type is InterfaceType.TAP
        }
        world.stop(vm)
        del world.vms[vm]
        world.links |= taps
        failed = make_unit(
            Template.SET_BOOTED, vm, "failed", result="exit-code", exec_main_status=200
        )
        for unit in (failed, make_unit(Template.MICROVM, vm, "inactive")):
            world.units[unit.name] = unit
        host.changed(Collector.SYSTEMD, Collector.LINKS, Collector.STATE)

    return happen


def _forget(vm: str) -> Action:
    """``systemctl reset-failed``: nothing holds the units of a removed VM any more."""

    def happen(host: SimulatedHost, _: float) -> None:
        world = host.world
        world.units = {name: unit for name, unit in world.units.items() if unit.vm != vm}
        host.changed(Collector.SYSTEMD)

    return happen


def _break_runner(vm: str) -> Action:
    """A runner without what the condition of ``microvm@`` asks for, and a start that is skipped."""

    def happen(host: SimulatedHost, _: float) -> None:
        host.stop(vm)
        runner = host.world.vms[vm].current_runner
        assert runner
        files = runner.files - {"bin/microvm-run"}
        host.world.change_state(vm, current_runner=replace(runner, files=files))
        unit = unmet(make_unit(Template.MICROVM, vm))
        host.world.units[unit.name] = unit

    return happen


def _needs_reload(vm: str, needed: bool) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        unit = f"{Template.MICROVM}{vm}.service"
        host.world.change_unit(unit, need_daemon_reload=needed)
        host.changed(Collector.SYSTEMD)

    return happen


def _lose(collector: Collector, error: str) -> Action:
    return lambda host, _: host.unread(collector, error)


def _regain(collector: Collector) -> Action:
    return lambda host, _: host.unread(collector, None)


def _miss(changes: int) -> Action:
    """Changes that only a resync finds."""

    def happen(host: SimulatedHost, _: float) -> None:
        host.missed += changes

    return happen


def _follow(collector: Collector, active: bool) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        host.following[collector] = active

    return happen


# ------------------------------------------------------------------------------- what happens

_WORKERS: Final = tuple(f"worker-{number}" for number in range(1, 11))
_HALF_OF_TENANTS: Final = tuple(f"tenant-{number:02}" for number in range(6, 13))

STORY: Final[Mapping[str, tuple[tuple[float, Action], ...]]] = {
    "alder": (
        (20, _crash("api")),
        # A switch: one VM is taken out and runs on, two are updated and not restarted.
        (60, _undeclare("firewall")),
        (60, _update("mail.internal", "metrics")),
        (60, _needs_reload("chat", needed=True)),
        (75, _needs_reload("chat", needed=False)),
        (150, _restart("mail.internal")),
        (170, _crash("api")),
        (200, _remove_in_one_go("firewall")),
        (215, _forget("firewall")),
        (290, _lose_tap("vm-firewall")),
        (300, _crash_loop("web")),
        (345, _restart("web")),
        (355, _declare_runner("cache", 2)),
        (380, _lose_tap("vm-queue")),
        (400, _make_tap("vm-left")),
        (420, _undeclare("wiki")),
        (440, _stop("db")),
        (450, _break_runner("ci")),
        (455, _crash_loop("api")),
    ),
    "birch": (
        (110, _lose(Collector.SYSTEMD, "no system bus at unix:path=/run/dbus/system_bus_socket")),
        (140, _regain(Collector.SYSTEMD)),
        (270, _stop("proxy")),
        (278, _start("proxy")),
    ),
    "cedar": (
        (40, _follow(Collector.STATE, active=False)),
        (252, lambda host, now: host.restart_exporter(now)),
        (253, _follow(Collector.STATE, active=True)),
        (310, _crash("ntp")),
        (360, _miss(3)),
    ),
    "elm": (
        (190, _stop(*_WORKERS[:7])),
        (212, _start(*_WORKERS[:7])),
        (330, _update(*_WORKERS)),
        *((332 + 4 * n, _restart(worker)) for n, worker in enumerate(_WORKERS)),
    ),
    "fir": (
        (365, _undeclare(*_HALF_OF_TENANTS)),
        (393, _declare_again(*_HALF_OF_TENANTS)),
    ),
    "oak": ((90, _crash("edge-3")),),
}
"""What happens to each host, in order: at which minute, and what."""
