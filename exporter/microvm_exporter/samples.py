"""Where the samples of the metrics come from: a function for each, from a `View` to its samples.

A function gives None where nothing can be told: a zero means looked, and found none.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from microvm_exporter import __version__
from microvm_exporter.activity import Activity, Delays
from microvm_exporter.counts import count, failed_checks_by_template
from microvm_exporter.drift import Judgement, Kind
from microvm_exporter.drift.host import Vm
from microvm_exporter.model import Collector, Leftouts, Origin, Template

__all__ = [
    "PerVm",
    "Sample",
    "Samples",
    "View",
    "build_info",
    "collector_duration",
    "collector_following",
    "collector_last_success",
    "collector_success",
    "declared_vms",
    "drift_finding",
    "drift_findings",
    "drifted_vms",
    "event_to_publish",
    "events",
    "failed_condition_checks",
    "last_refresh",
    "left_out",
    "missed_changes",
    "present_units",
    "refreshes",
    "stray_tap_devices",
    "unit_templates",
    "vm_info",
    "vm_restarts",
    "vm_running",
    "vm_start_time",
]

Sample = tuple[tuple[str, ...], float | Delays]
"""Label values in the order of the metric's labels, and the value: Delays for a histogram."""

Samples = Iterable[Sample] | None


@dataclass(frozen=True, slots=True)
class View:
    """What is told: of the host, and of the exporter itself."""

    judgement: Judgement
    activity: Activity


@dataclass(frozen=True, slots=True)
class PerVm:
    """Samples that come each from one VM and nothing else: good for as long as that is the same.

    ``sources`` are those without which nothing can be told of any.
    """

    sources: frozenset[Collector]
    sample: Callable[[Vm], Sample | None]

    def vms(self, view: View) -> Collection[Vm] | None:
        """Give the VMs that may have a sample, None when that cannot be told."""
        host = view.judgement.host
        return host.vms.values() if self.sources <= host.sources else None

    def __call__(self, view: View) -> Samples:
        """Give the samples of all VMs."""
        vms = self.vms(view)
        return None if vms is None else [found for vm in vms if (found := self.sample(vm))]


def _number(value: float | None) -> Samples:
    return None if value is None else [((), value)]


# ----------------------------------------------------------------------------------- the host
# These take the judgement's host and findings and nothing else of the view: what is remembered of
# them is good for as long as those two are the same.


def declared_vms(view: View) -> Samples:
    """Give the number of declared VMs."""
    return _number(count(view.judgement).declared_vms)


def present_units(view: View) -> Samples:
    """Give the number of units by template and ActiveState."""
    host = view.judgement.host
    if Collector.SYSTEMD not in host.sources:
        return None
    always = {(Template.MICROVM, state): 0 for state in ("active", "inactive", "failed")}
    return sorted({**always, **host.present_units}.items())


def failed_condition_checks(view: View) -> Samples:
    """Give the number of wrongly skipped starts by template."""
    checks = failed_checks_by_template(view.judgement)
    return None if checks is None else [((template,), n) for template, n in checks.items()]


def stray_tap_devices(view: View) -> Samples:
    """Give the number of stray TAPs."""
    return _number(count(view.judgement).stray_tap_devices)


def unit_templates(view: View) -> Samples:
    """Give the number of installed templates."""
    host = view.judgement.host
    return _number(len(host.tree.templates) if Collector.STATE in host.sources else None)


def drifted_vms(view: View) -> Samples:
    """Give the number of VMs with a finding."""
    judgement = view.judgement
    if judgement.judged != frozenset(Kind):
        return None
    return _number(len({finding.vm for finding in judgement.findings} - {""}))


def drift_findings(view: View) -> Samples:
    """Give the number of findings by kind."""
    found = Counter(finding.kind for finding in view.judgement.findings)
    return [((kind,), found[kind]) for kind in Kind if kind in view.judgement.judged]


def drift_finding(view: View) -> Samples:
    """Give each finding."""
    return [((f.kind, f.severity, f.vm, f.object), 1) for f in view.judgement.findings]


def vm_info(vm: Vm) -> Sample | None:
    """Give what the VM is."""
    return ((vm.name, *_describe(vm)), 1) if _is_shown(vm) else None


def vm_running(vm: Vm) -> Sample | None:
    """Tell whether the VM is active."""
    return ((vm.name,), vm.active) if _is_shown(vm) else None


def vm_start_time(vm: Vm) -> Sample | None:
    """Give the time since when the VM is active."""
    service = vm.service
    return ((vm.name,), service.active_enter_timestamp) if service and vm.active else None


def vm_restarts(vm: Vm) -> Sample | None:
    """Give the restarts of the VM, when it is loaded."""
    return ((vm.name,), vm.service.restarts) if vm.service else None


def _is_shown(vm: Vm) -> bool:
    return vm.declared is not None or vm.present


def _describe(vm: Vm) -> tuple[str, str, str]:
    runner = vm.current_runner
    hypervisor = (vm.declared and vm.declared.hypervisor) or (runner and runner.hypervisor)
    return _origin(vm), hypervisor or "unknown", str(vm.autostart).lower()


def _origin(vm: Vm) -> Origin:
    if vm.declared:
        return vm.declared.origin
    if vm.imperative:
        return Origin.IMPERATIVE
    return Origin.UNKNOWN if vm.has_flake else Origin.UNDECLARED


# ------------------------------------------------------------------------------- the exporter


def build_info(_: View) -> Samples:
    """Give the versions."""
    return [((__version__, platform.python_version()), 1)]


def collector_success(view: View) -> Samples:
    """Tell of each collector whether it works."""
    readings = view.judgement.snapshot.readings()
    return [((name,), reading.value is not None) for name, reading in readings.items()]


def collector_duration(view: View) -> Samples:
    """Give how long each collector took."""
    readings = view.judgement.snapshot.readings()
    return [((name,), reading.duration) for name, reading in readings.items()]


def collector_last_success(view: View) -> Samples:
    """Give when each collector worked last."""
    return [
        ((name,), reading.last_success)
        for name, reading in view.judgement.snapshot.readings().items()
        if reading.last_success is not None
    ]


def collector_following(view: View) -> Samples:
    """Tell of each collector whether it hears of changes."""
    readings = view.judgement.snapshot.readings()
    return [((name,), reading.following.active) for name, reading in readings.items()]


def events(view: View) -> Samples:
    """Give the number of events that each collector has heard of."""
    readings = view.judgement.snapshot.readings()
    return [((name,), reading.following.events) for name, reading in readings.items()]


def missed_changes(view: View) -> Samples:
    """Give the number of changes that no event had told of."""
    readings = view.judgement.snapshot.readings()
    return _number(sum(reading.following.missed for reading in readings.values()))


def left_out(view: View) -> Samples:
    """Give what was left out, where something was."""
    return [
        ((name, reason), n)
        for name, reading in view.judgement.snapshot.readings().items()
        if reading.value is not None
        for reason, n in _by_reason(reading.value.left_out)
        if n
    ]


def _by_reason(left_out: Leftouts) -> tuple[tuple[str, int], ...]:
    return (
        ("limit", left_out.limit),
        ("unreadable", left_out.unreadable),
        ("name", left_out.name),
    )


def refreshes(view: View) -> Samples:
    """Give the number of refreshes by cause."""
    return [((cause,), n) for cause, n in view.activity.refreshes.items()]


def event_to_publish(view: View) -> Samples:
    """Give the times from events to the snapshots that show them."""
    return [((), view.activity.delays)]


def last_refresh(view: View) -> Samples:
    """Give when the snapshot was taken."""
    return _number(view.judgement.snapshot.taken_at)
