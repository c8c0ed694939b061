"""What can happen to a simulated host: functions that give it, by name, as an `Action`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from microvm_exporter.model import Collector, InterfaceType, Template
from microvm_simulator.beginnings import BUILDERS
from microvm_simulator.host import SimulatedHost
from world import make_unit, runner_path, unmet

Action = Callable[[SimulatedHost, float], None]
"""Something that happens to a host at a time (Unix seconds)."""


def undeclare(*vms: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        for vm in vms:
            host.undeclare(vm)

    return happen


def declare_again(*vms: str) -> Action:
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


def update(*vms: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        for vm in vms:
            host.update(vm, runner_path(vm, 2))

    return happen


def declare_runner(vm: str, build: int) -> Action:
    return lambda host, _: host.declare_runner(vm, runner_path(vm, build))


def stop(*vms: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        for vm in vms:
            host.stop(vm)

    return happen


def start(*vms: str) -> Action:
    def happen(host: SimulatedHost, now: float) -> None:
        for vm in vms:
            host.start(vm, now)

    return happen


def restart(vm: str) -> Action:
    return lambda host, now: host.restart(vm, now)


def crash(vm: str) -> Action:
    return lambda host, now: host.crash(vm, now)


def crash_loop(vm: str) -> Action:
    return lambda host, _: host.crash_loop(vm)


def lose_tap(device: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        del host.world.links[device]
        host.changed(Collector.LINKS)

    return happen


def make_tap(device: str) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        host.world.link(device)
        host.changed(Collector.LINKS)

    return happen


def remove_in_one_go(vm: str) -> Action:
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


def forget(vm: str) -> Action:
    """``systemctl reset-failed``: nothing holds the units of a removed VM any more."""

    def happen(host: SimulatedHost, _: float) -> None:
        world = host.world
        world.units = {name: unit for name, unit in world.units.items() if unit.vm != vm}
        host.changed(Collector.SYSTEMD)

    return happen


def break_runner(vm: str) -> Action:
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


def needs_reload(vm: str, needed: bool) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        unit = f"{Template.MICROVM}{vm}.service"
        host.world.change_unit(unit, need_daemon_reload=needed)
        host.changed(Collector.SYSTEMD)

    return happen


def lose(collector: Collector, error: str) -> Action:
    return lambda host, _: host.unread(collector, error)


def regain(collector: Collector) -> Action:
    return lambda host, _: host.unread(collector, None)


def miss(changes: int) -> Action:
    """Changes that only a resync finds."""

    def happen(host: SimulatedHost, _: float) -> None:
        host.missed += changes

    return happen


def follow(collector: Collector, active: bool) -> Action:
    def happen(host: SimulatedHost, _: float) -> None:
        host.following[collector] = active

    return happen
