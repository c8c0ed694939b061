"""Rules on start conditions: the ones that should have held, and the ones that would not hold.

A helper's condition is unmet on every healthy host when the VM has no such device, so what counts
is whether it has one. ``install-microvm-N`` of an installed flake VM is unmet by design, and
``microvm-set-booted@`` has no condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from microvm_exporter.drift import remedies
from microvm_exporter.drift.host import Site
from microvm_exporter.drift.kinds import Finding, Kind, Severity, found
from microvm_exporter.drift.vm import Vm
from microvm_exporter.model import (
    Condition,
    FailedCheck,
    Interface,
    InterfaceType,
    Runner,
    Template,
    Unit,
    parse_unit_name,
)

__all__ = ["condition_unmet", "would_not_start"]

_CONDITIONAL: Final = (
    Template.MICROVM,
    Template.TAP,
    Template.MACVTAP,
    Template.PCI,
    Template.VIRTIOFSD,
)


def condition_unmet(site: Site, vm: Vm) -> Iterator[Finding]:
    """The last start of a unit was skipped by a condition that should have held."""
    for check, template in _wrongly_skipped(vm):
        why = _unmet(site, vm, template, check.conditions)
        finding = found(
            Kind.CONDITION_UNMET,
            vm.name,
            check.unit,
            f"the last start of {check.unit} was skipped: {why}",
            remedies.mend(site, vm),
        )
        if template is Template.MICROVM:
            finding = replace(finding, severity=Severity.CRITICAL)
        yield finding


def would_not_start(site: Site, vm: Vm) -> Iterator[Finding]:
    """Such a condition does not hold now, for a known N, whatever the last start did."""
    if not (vm.known and (vm.declared or vm.present)):
        return
    skipped = {check.unit for check, _ in _wrongly_skipped(vm)}
    for template in _CONDITIONAL:
        unit = f"{template}{vm.name}.service"
        if unit in skipped or not _should_hold(vm, template):
            continue
        for path in site.templates.get(template, ()):
            path = path.replace("%i", vm.name)
            if _holds(site, vm, path) is False:
                yield found(
                    Kind.WOULD_NOT_START,
                    vm.name,
                    path,
                    f"{unit} would not start: {path} is not there",
                    remedies.mend(site, vm),
                )


def _wrongly_skipped(vm: Vm) -> Iterator[tuple[FailedCheck, Template]]:
    """Give the failed checks that should have held, each with the template of its unit."""
    for template, unit in vm.units.items():
        if _was_skipped(unit) and _should_have_held(vm, template, unit.condition_timestamp):
            yield FailedCheck(unit.name, unit.condition_timestamp, unit.conditions), template
    for check in vm.failed_checks:
        parsed = parse_unit_name(check.unit)
        if parsed and _should_have_held(vm, parsed[0], check.at):
            yield check, parsed[0]


def _was_skipped(unit: Unit) -> bool:
    """ConditionResult is false before any check: only the timestamp gives it a meaning."""
    return unit.condition_timestamp > 0 and not unit.condition_result


def _should_have_held(vm: Vm, template: Template, at: float) -> bool:
    """Tell whether it should, by what was there to be started then.

    A VM that runs may have got a device since, by an update that awaits a restart. So may one
    that is down, by a new `current`: what a helper's check before that came to is over.
    """
    state = vm.state
    if vm.active and state and state.booted_runner and not vm.booted_is_current:
        return _has_device(template, state.booted_runner, state.booted_runner.interfaces)
    replaced = state.current.changed if state and state.current and not vm.active else 0.0
    if at < replaced and template is not Template.MICROVM:
        return False
    return _should_hold(vm, template)


def _should_hold(vm: Vm, template: Template) -> bool:
    return _has_device(template, vm.current_runner or Runner(), vm.next_interfaces or ())


def _has_device(template: Template, runner: Runner, interfaces: tuple[Interface, ...]) -> bool:
    match template:
        case Template.MICROVM:
            return True
        case Template.TAP:
            return any(interface.type is InterfaceType.TAP for interface in interfaces)
        case Template.MACVTAP:
            return any(interface.type is InterfaceType.MACVTAP for interface in interfaces)
        case Template.PCI:
            return runner.pci
        case Template.VIRTIOFSD:
            return runner.virtiofs
        case Template.SET_BOOTED | Template.INSTALL:
            return False


def _holds(site: Site, vm: Vm, path: str) -> bool | None:
    """Tell whether the path of a condition is there now; None when nothing tells."""
    prefix = f"{site.state_dir}/{vm.name}/current/"
    if not path.startswith(prefix):
        return None
    state = vm.state
    if state is None:
        return None if vm.state_unseen else False
    if not state.readable:
        return None
    if state.current_runner is not None:
        return path.removeprefix(prefix) in state.current_runner.files
    return False if state.current is None or state.current.dangling else None


def _unmet(site: Site, vm: Vm, template: Template, conditions: tuple[Condition, ...]) -> str:
    """Name what was unmet.

    After a daemon-reload only the disk can tell which condition it was, and of a unit that systemd
    has forgotten only its template can tell which it had.
    """
    unmet = [c for c in conditions if c.state < 0]
    had = conditions or tuple(
        Condition("ConditionPathExists", path.replace("%i", vm.name))
        for path in site.templates.get(template, ())
    )
    unmet = unmet or [c for c in had if _holds(site, vm, c.parameter) is False]
    if not unmet:
        return "a condition did not hold"
    return ", ".join(f"{c.type}={'!' if c.negate else ''}{c.parameter} did not hold" for c in unmet)
