"""How each bad case comes about on a host, by the means of those who run into it.

Each function takes a fleet and the name of a VM of it, unless it says otherwise, brings its case
about, and returns what mends it: call that, or not. The VM is running before, unless it says
otherwise, and a mended VM runs again, unless it is removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from host import layout
from host.fleet import Fleet
from host.layout import GCROOTS, SHARE_CONDITIONS, STATE, UNITS, Era
from host.machine import eventually

Mend = Callable[[], object]


# What is left of a VM that was removed


def undeclare_running(fleet: Fleet, name: str) -> Mend:
    """A switch that does not stop what it drops: NixOS before the fix of 2026-04."""
    mend = _removal_of(fleet, name)
    fleet.undeclare(name)
    return mend


def undeclare_stopped(fleet: Fleet, name: str) -> Mend:
    """A switch that stops what it drops. The state stays, and a flake VM's tells no origin."""
    mend = _removal_of(fleet, name)
    fleet.stop(name)
    fleet.undeclare(name)
    return mend


def remove_as_documented(fleet: Fleet, name: str) -> Mend:
    """Both commands at once: the first does not wait for the helpers, the second takes their files.

    How far they come is a matter of luck: a TAP is left behind in some runs only.
    """
    mend = _removal_of(fleet, name)
    fleet.undeclare(name)
    remove = f"systemctl stop microvm@{name}.service && rm -rf {STATE / name}"
    fleet.machine.run("sh", "-c", remove)
    fleet.settle()
    return mend


def start_removed(fleet: Fleet, name: str) -> Mend:
    """Someone starts a VM that was removed, state and all; the template lets them."""
    _removal_of(fleet, name)()
    _try("start", fleet, name)
    return lambda: fleet.reset_failed(name)


def delete_state_and_stop(fleet: Fleet, name: str) -> Mend:
    """The directory of a running VM goes, and the VM is stopped then."""
    fleet.machine.remove(STATE / name)
    _try("stop", fleet, name)
    return lambda: fleet.reinstall(name)


def leave_gcroots(fleet: Fleet, name: str) -> Mend:
    """A VM made by hand is removed, but for its links among the garbage collector's roots."""
    mend = _removal_of(fleet, name)
    fleet.machine.systemctl("stop", *fleet.era.units(name))
    fleet.machine.remove(STATE / name)
    fleet.undeclare(name)
    return mend


def leave_drop_in(fleet: Fleet, name: str) -> Mend:
    """`systemctl set-property` wrote where NixOS does not look. `name` is no VM's (any more)."""
    folder = PurePosixPath(f"/etc/systemd/system.control/microvm@{name}.service.d")
    fleet.machine.write(folder / "50-MemoryMax.conf", "[Service]\nMemoryMax=1073741824\n")
    return _reload_and_undo(fleet, lambda: fleet.machine.remove(folder))


def leave_wants_link(fleet: Fleet, name: str) -> Mend:
    """`microvms.target` wants a unit that is not there. `name` is no VM's (any more)."""
    unit = f"install-microvm-{name}.service"
    link = UNITS / f"{layout.TARGET}.wants" / unit
    fleet.machine.link(link, f"../{unit}")
    return _reload_and_undo(fleet, lambda: fleet.machine.remove(link))


def remove_safely(fleet: Fleet, name: str) -> None:
    """No bad case but the remedy: all members in one `systemctl stop`, then what else is left.

    It leaves no TAP behind in today's layout. In the one before, no stop of a VM removes its TAPs.
    """
    if name in fleet.vms:
        fleet.undeclare(name)
    fleet.machine.systemctl("stop", *fleet.era.units(name))
    fleet.machine.remove(STATE / name)
    for link in (name, f"booted-{name}", f"old-{name}"):
        fleet.machine.remove(GCROOTS / link)
    fleet.machine.systemctl("daemon-reload")
    fleet.reset_failed(name)


# State and runner


def delete_state(fleet: Fleet, name: str) -> Mend:
    """The directory of a stopped VM goes; its declaration does not."""
    fleet.stop(name)
    fleet.machine.remove(STATE / name)
    return lambda: fleet.reinstall(name)


def start_without_current(fleet: Fleet, name: str) -> Mend:
    """The directory has no link `current`, and the VM is started."""
    fleet.stop(name)
    fleet.machine.remove(STATE / name / "current")
    _try("start", fleet, name)
    return lambda: fleet.reinstall(name)


def collect_garbage(fleet: Fleet, name: str) -> Mend:
    """The runner goes from the store, links to it lead nowhere, and the VM runs on."""
    fleet.machine.remove(fleet.vms[name].runner)
    return lambda: fleet.reinstall(name)


def break_runner(fleet: Fleet, name: str) -> Mend:
    """The runner of a stopped VM has no `bin/microvm-run`: it would not start.

    It is installed like that: what is in the store never changes.
    """
    vm = fleet.vms[name]
    fleet.stop(name)
    fleet.machine.remove(vm.runner / "bin/microvm-run")
    fleet.machine.link(vm.state / "current", vm.runner)
    return lambda: fleet.reinstall(name)


def start_broken_runner(fleet: Fleet, name: str) -> Mend:
    """The runner has no `bin/microvm-run`, and the VM is started: its helpers are."""
    mend = break_runner(fleet, name)
    _try("start", fleet, name)
    return mend


def run_old_runner(fleet: Fleet, name: str) -> Mend:
    """A runner of before 2024-12 has no scripts for the helpers of a later host.

    They make no TAP and share nothing; a hypervisor that needs these ends at once, again and again.
    """
    vm = fleet.vms[name]

    def run(era: Era | None) -> None:
        fleet.stop(name)
        fleet.delete_links(*vm.taps, *vm.macvtaps)  # the host was booted in between
        fleet.machine.remove(vm.runner)
        fleet.declare(replace(vm, runner_era=era))
        fleet.machine.systemctl("daemon-reload")
        fleet.reinstall(name)

    run(SHARE_CONDITIONS)
    if vm.taps:
        _wait_for_crash(fleet, name)
    return lambda: run(vm.runner_era)


def update_running(fleet: Fleet, name: str) -> Mend:
    """A new runner is installed, and the VM still runs the one before."""
    fleet.update(name)
    return lambda: fleet.restart(name)


def skip_install(fleet: Fleet, name: str) -> Mend:
    """A new runner is declared and not installed."""
    fleet.rebuild(name)
    return lambda: fleet.reinstall(name)


# Units


def stop_autostarted(fleet: Fleet, name: str) -> Mend:
    """A VM that is to run does not."""
    fleet.stop(name)
    return lambda: fleet.start(name)


def crash_in_a_loop(fleet: Fleet, name: str) -> Mend:
    """The hypervisor ends as soon as it starts; systemd starts it every 5 s."""
    mend = _restart_with_script(fleet, name, "microvm-run", "exit 1")
    _wait_for_crash(fleet, name)
    return mend


def fail_helper(fleet: Fleet, name: str) -> Mend:
    """The TAPs of a VM that has some cannot be made, and it is not started (since 2024-12)."""
    return _restart_with_script(fleet, name, "tap-up", "exit 1")


def start_helper_alone(fleet: Fleet, name: str) -> Mend:
    """The file system daemons of a stopped VM that has shares (#42)."""
    fleet.stop(name)
    fleet.machine.systemctl("start", f"microvm-virtiofsd@{name}.service")
    return lambda: fleet.start(name)


def change_unit_file(fleet: Fleet, name: str) -> Mend:
    """A file of a declared VM's unit is newer than what systemd has read of it."""
    fleet.machine.write(UNITS / f"microvm@{name}.service.d/local.conf", "[Service]\nNice=5\n")
    return lambda: fleet.machine.systemctl("daemon-reload")


def remove_templates(fleet: Fleet) -> Mend:
    """The host module goes before its VMs do."""
    layout.uninstall(fleet.machine)
    return _reload_and_undo(fleet, fleet.install_module)


# Interfaces


def leak_links(fleet: Fleet, name: str) -> Mend:
    """The TAPs and macvtaps of a stopped VM are there, made by its runner (since 2024-12)."""
    fleet.stop(name)
    vm = fleet.vms[name]
    for kind in ("tap", "macvtap"):
        script = vm.runner / f"bin/{kind}-up"
        if fleet.machine.path(script).exists():
            fleet.machine.run(str(script))
    return lambda: fleet.start(name)


def add_tap(fleet: Fleet, tap: str, user: str = "microvm") -> Mend:
    """A TAP `tap` of no VM: a leaked one, or, with another user, that of some other software."""
    fleet.machine.run("ip", "tuntap", "add", "name", tap, "mode", "tap", "user", user, "vnet_hdr")
    return lambda: fleet.delete_links(tap)


def delete_tap(fleet: Fleet, name: str) -> Mend:
    """The first TAP of a running VM goes."""
    tap = fleet.vms[name].taps[0]
    carrier = fleet.machine.path(f"/sys/class/net/{tap}/carrier")
    eventually(f"{tap} is held open", lambda: carrier.read_text() == "1\n")
    fleet.delete_links(tap)
    return lambda: fleet.restart(name)


# Parts of the above


def _removal_of(fleet: Fleet, name: str) -> Mend:
    """Removes a VM with its links, whatever has become of it and the era; to be had beforehand."""
    vm = fleet.vms[name]

    def remove() -> None:
        remove_safely(fleet, name)
        fleet.delete_links(*vm.taps, *vm.macvtaps)

    return remove


def _try(verb: str, fleet: Fleet, name: str) -> None:
    """Starts or stops a VM by a command that may well fail."""
    fleet.machine.systemctl(verb, f"microvm@{name}.service", check=False)
    fleet.settle()


def _reload_and_undo(fleet: Fleet, undo: Callable[[], None]) -> Mend:
    """Reloads systemd after a change of unit files, and again after its undoing."""
    fleet.machine.systemctl("daemon-reload")

    def mend() -> None:
        undo()
        fleet.machine.systemctl("daemon-reload")

    return mend


def _restart_with_script(fleet: Fleet, name: str, script: str, text: str) -> Mend:
    fleet.machine.write(fleet.vms[name].runner / "bin" / script, f"#!/bin/sh\n{text}\n", 0o755)
    _try("restart", fleet, name)
    return lambda: fleet.reinstall(name)


def _wait_for_crash(fleet: Fleet, name: str) -> None:
    def waits() -> bool:
        shown = fleet.machine.show(f"microvm@{name}.service", "SubState")
        return shown["SubState"] == "auto-restart"

    eventually(f"microvm@{name} has crashed", waits)
