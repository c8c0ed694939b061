"""Rules on the units themselves: failed, left over, not reloaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Site
from microvm_exporter.drift.kinds import Finding, Kind, found
from microvm_exporter.drift.vm import Vm, is_active
from microvm_exporter.model import HELPERS, Template, Unit
from microvm_exporter.text import quote

__all__ = ["daemon_reload_needed", "helper_without_vm", "unit_failed"]

# microvm-shutdown is what `systemctl stop` calls; these have none, so ExecStop fails.
_NO_SHUTDOWN: Final = frozenset({"kvmtool", "stratovirt", "alioth"})
# What systemd itself exits with in a service's stead (systemd.exec(5)), as systemctl shows it.
_STATUS: Final = {200: "CHDIR", 203: "EXEC"}
_PLAIN_FAILURES: Final = frozenset({"exit-code", "signal"})


def unit_failed(site: Site, vm: Vm) -> Iterator[Finding]:
    """A unit of N has failed, unless every stop on such a host leaves it so."""
    for unit in vm.units.values():
        if unit.active_state == "failed" and not _fails_normally(site, vm, unit):
            yield found(
                Kind.UNIT_FAILED,
                vm.name,
                unit.name,
                f"{unit.name} failed: {unit.result}{_status(unit.exec_main_status)}",
                (*remedies.look_at_unit(unit.name), f"systemctl reset-failed {quote(unit.name)}"),
            )


def helper_without_vm(_: Site, vm: Vm) -> Iterator[Finding]:
    """A helper of N is active while ``microvm@N`` is inactive or failed."""
    if not vm.stopped:
        return
    for template in HELPERS:
        helper = vm.units.get(template)
        if helper and is_active(helper):
            yield found(
                Kind.HELPER_WITHOUT_VM,
                vm.name,
                helper.name,
                f"{helper.name} is active but microvm@{vm.name}.service is not",
                (remedies.start(vm) if vm.known and vm.autostart else remedies.stop(vm),),
            )


def daemon_reload_needed(_: Site, vm: Vm) -> Iterator[Finding]:
    """A unit's file changed after systemd had read it."""
    for unit in vm.units.values():
        # Of a masked unit with drop-ins systemd says so for ever.
        if unit.need_daemon_reload and unit.load_state == "loaded":
            yield found(
                Kind.DAEMON_RELOAD_NEEDED,
                vm.name,
                unit.name,
                f"{unit.name} changed on disk since systemd read it",
                ("systemctl daemon-reload",),
            )


def _status(code: int) -> str:
    """Say what the main process ended with, where it is that which failed."""
    if code == 0:
        return ""
    return f", status {code}/{_STATUS[code]}" if code in _STATUS else f", status {code}"


def _fails_normally(site: Site, vm: Vm, unit: Unit) -> bool:
    match unit.template:
        case Template.MICROVM:
            return unit.result in _PLAIN_FAILURES and _lacks_shutdown(vm)
        case Template.TAP | Template.MACVTAP:
            return _stop_always_fails(site, unit)
        case _:
            return False


def _lacks_shutdown(vm: Vm) -> bool:
    runner = vm.current_runner
    if runner is not None:
        return "bin/microvm-shutdown" not in runner.files and runner.hypervisor in _NO_SHUTDOWN
    return vm.declared is not None and vm.declared.hypervisor in _NO_SHUTDOWN


def _stop_always_fails(site: Site, unit: Unit) -> bool:
    """From 2024-12-03 to 2026-02-21 ``microvm@`` removed ``booted`` before tap-down was called.

    Such a host tests ``bin/tap-up`` and has no ``microvm-set-booted@``. The status of the main
    process is that of tap-up: not 0 means that the start failed, which is never normal.
    """
    paths = site.templates.get(unit.template, ())
    return (
        Template.SET_BOOTED not in site.templates
        and any("/current/bin/" in path for path in paths)
        and unit.result == "exit-code"
        and unit.exec_main_status == 0
    )
