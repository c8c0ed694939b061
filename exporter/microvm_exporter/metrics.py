"""Every metric of the exporter, declared once as data.

What is printed to ``/metrics`` and to ``docs/metrics.md`` derives from `METRICS`. A metric whose
samples cannot be told gives None and is absent: a zero means that something was looked for and
not found.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from microvm_exporter import __version__
from microvm_exporter.counts import count, failed_checks_by_template
from microvm_exporter.drift import Judgement, Kind
from microvm_exporter.drift.host import Vm
from microvm_exporter.model import Collector, Leftouts, Origin, Template

__all__ = ["METRICS", "Metric", "MetricType", "Sample"]

Sample = tuple[tuple[str, ...], float]
"""Label values in the order of the metric's labels, and the value."""


class MetricType(StrEnum):
    """Prometheus's metric types, as far as they are used here."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, type, meaning and labels, and where its samples come from."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Judgement], Iterable[Sample] | None]


def _gauge(
    name: str,
    labels: str,
    samples: Callable[[Judgement], Iterable[Sample] | None],
    text: str,
) -> Metric:
    return Metric(name, MetricType.GAUGE, text, tuple(labels.split()), samples)


# ----------------------------------------------------------------------------------- the host


def _number(value: float | None) -> Iterable[Sample] | None:
    return None if value is None else [((), value)]


def _present_units(judgement: Judgement) -> Iterable[Sample] | None:
    if Collector.SYSTEMD not in judgement.host.sources:
        return None
    always = dict.fromkeys(
        ((Template.MICROVM, state) for state in ("active", "inactive", "failed")), 0
    )
    units = judgement.host.units.units.values()
    found = Counter((unit.template, unit.active_state) for unit in units)
    return [(key, n) for key, n in sorted((always | found).items())]


def _failed_condition_checks(judgement: Judgement) -> Iterable[Sample] | None:
    checks = failed_checks_by_template(judgement)
    return None if checks is None else [((template,), n) for template, n in checks.items()]


def _unit_templates(judgement: Judgement) -> Iterable[Sample] | None:
    read = Collector.STATE in judgement.host.sources
    return _number(len(judgement.host.tree.templates) if read else None)


# -------------------------------------------------------------------------------------- drift


def _drifted_vms(judgement: Judgement) -> Iterable[Sample] | None:
    if judgement.judged != frozenset(Kind):
        return None
    return _number(len({finding.vm for finding in judgement.findings} - {""}))


def _drift_findings(judgement: Judgement) -> Iterable[Sample]:
    found = Counter(finding.kind for finding in judgement.findings)
    return [((kind,), found[kind]) for kind in Kind if kind in judgement.judged]


def _drift_finding(judgement: Judgement) -> Iterable[Sample]:
    return [((f.kind, f.severity, f.vm, f.object), 1) for f in judgement.findings]


# ---------------------------------------------------------------------------------------- VMs


def _vm_info(judgement: Judgement) -> Iterable[Sample] | None:
    if not judgement.host.sources >= {Collector.DECLARATION, Collector.SYSTEMD, Collector.STATE}:
        return None
    return [((vm.name, *_describe(vm)), 1) for vm in _vms(judgement)]


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


def _vm_running(judgement: Judgement) -> Iterable[Sample] | None:
    if Collector.SYSTEMD not in judgement.host.sources:
        return None
    return [((vm.name,), vm.active) for vm in _vms(judgement)]


def _vm_start_time(judgement: Judgement) -> Iterable[Sample] | None:
    if Collector.SYSTEMD not in judgement.host.sources:
        return None
    return [
        ((vm.name,), vm.service.active_enter_timestamp)
        for vm in _vms(judgement)
        if vm.active and vm.service
    ]


def _vm_restarts(judgement: Judgement) -> Iterable[Sample] | None:
    if Collector.SYSTEMD not in judgement.host.sources:
        return None
    return [((vm.name,), vm.service.restarts) for vm in _vms(judgement) if vm.service]


def _vms(judgement: Judgement) -> Iterator[Vm]:
    return (vm for vm in judgement.host.vms.values() if vm.declared or vm.present)


# ------------------------------------------------------------------------------- the exporter


def _build_info(_: Judgement) -> Iterable[Sample]:
    return [((__version__, platform.python_version()), 1)]


def _collector_success(judgement: Judgement) -> Iterable[Sample]:
    return [((name,), r.value is not None) for name, r in judgement.snapshot.readings().items()]


def _collector_duration(judgement: Judgement) -> Iterable[Sample]:
    return [((name,), r.duration) for name, r in judgement.snapshot.readings().items()]


def _collector_last_success(judgement: Judgement) -> Iterable[Sample]:
    return [
        ((name,), r.last_success)
        for name, r in judgement.snapshot.readings().items()
        if r.last_success is not None
    ]


def _left_out(judgement: Judgement) -> Iterable[Sample]:
    for name, reading in judgement.snapshot.readings().items():
        left_out = getattr(reading.value, "left_out", None)
        if isinstance(left_out, Leftouts):
            yield ((name, "limit"), left_out.limit)
            if name is not Collector.DECLARATION:
                yield ((name, "unreadable"), left_out.unreadable)
            if name in (Collector.SYSTEMD, Collector.STATE):
                yield ((name, "name"), left_out.name)


METRICS: Final = (
    _gauge(
        "microvm_declared_vms",
        "",
        lambda j: _number(count(j).declared_vms),
        "MicroVMs that are declared.",
    ),
    _gauge(
        "microvm_present_units",
        "template state",
        _present_units,
        "Loaded unit instances by template and ActiveState.",
    ),
    _gauge(
        "microvm_failed_condition_checks",
        "template",
        _failed_condition_checks,
        "Units whose last start was skipped by a condition that should have held.",
    ),
    _gauge(
        "microvm_stray_tap_devices",
        "",
        lambda j: _number(count(j).stray_tap_devices),
        "TAP devices of the microvm user that no MicroVM claims.",
    ),
    _gauge(
        "microvm_unit_templates",
        "",
        _unit_templates,
        "Template unit files of microvm.nix that are installed.",
    ),
    _gauge(
        "microvm_drifted_vms",
        "",
        _drifted_vms,
        "MicroVMs with at least one finding.",
    ),
    _gauge(
        "microvm_drift_findings",
        "kind",
        _drift_findings,
        "Findings by kind of drift.",
    ),
    _gauge(
        "microvm_drift_finding",
        "kind severity vm object",
        _drift_finding,
        "A finding, 1 while it lasts.",
    ),
    _gauge(
        "microvm_vm_info",
        "vm origin hypervisor autostart",
        _vm_info,
        "A declared or present MicroVM, always 1.",
    ),
    _gauge(
        "microvm_vm_running",
        "vm",
        _vm_running,
        "Whether microvm@VM is active.",
    ),
    _gauge(
        "microvm_vm_start_time_seconds",
        "vm",
        _vm_start_time,
        "Unix time since when microvm@VM is active.",
    ),
    Metric(
        "microvm_vm_restarts_total",
        MetricType.COUNTER,
        "Automatic restarts of microvm@VM since it was last started (systemd's NRestarts).",
        ("vm",),
        _vm_restarts,
    ),
    _gauge(
        "microvm_exporter_build_info",
        "version python_version",
        _build_info,
        "Version of the exporter and of the Python it runs on, always 1.",
    ),
    _gauge(
        "microvm_exporter_collector_success",
        "collector",
        _collector_success,
        "Whether the collector could read its source.",
    ),
    _gauge(
        "microvm_exporter_collector_duration_seconds",
        "collector",
        _collector_duration,
        "Duration of the collector's last run.",
    ),
    _gauge(
        "microvm_exporter_collector_last_success_timestamp_seconds",
        "collector",
        _collector_last_success,
        "Unix time when the collector last read its source.",
    ),
    _gauge(
        "microvm_exporter_left_out_objects",
        "collector reason",
        _left_out,
        "Objects passed over: beyond the limit, unreadable, or of a name that no unit can have.",
    ),
    _gauge(
        "microvm_exporter_last_refresh_timestamp_seconds",
        "",
        lambda j: _number(j.snapshot.taken_at),
        "Unix time when the snapshot served was taken.",
    ),
)
