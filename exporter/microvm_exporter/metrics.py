"""Every metric of the exporter, declared once as data.

What is printed to ``/metrics`` and to ``docs/metrics.md`` derives from `METRICS`. A metric whose
samples cannot be told gives None and is absent: a zero means that something was looked for and
not found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from microvm_exporter import samples
from microvm_exporter.model import Collector
from microvm_exporter.samples import PerVm, Samples, View

__all__ = ["METRICS", "Metric", "MetricType"]


class MetricType(StrEnum):
    """Prometheus's metric types, as far as they are used here."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, type, meaning and labels, and where its samples come from."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...]
    samples: Callable[[View], Samples]

    @property
    def of_host(self) -> bool:
        """It tells of the host, from the judgement's host and findings alone."""
        return not self.name.startswith("microvm_exporter_")


def _gauge(name: str, labels: str, source: Callable[[View], Samples], text: str) -> Metric:
    return Metric(name, MetricType.GAUGE, text, tuple(labels.split()), source)


def _counter(name: str, labels: str, source: Callable[[View], Samples], text: str) -> Metric:
    return Metric(name, MetricType.COUNTER, text, tuple(labels.split()), source)


_UNITS: Final = frozenset({Collector.SYSTEMD})
_ALL_OF_VM: Final = frozenset({Collector.DECLARATION, Collector.SYSTEMD, Collector.STATE})

METRICS: Final = (
    _gauge(
        "microvm_declared_vms",
        "",
        samples.declared_vms,
        "MicroVMs that are declared.",
    ),
    _gauge(
        "microvm_present_units",
        "template state",
        samples.present_units,
        "Loaded unit instances by template and ActiveState.",
    ),
    _gauge(
        "microvm_failed_condition_checks",
        "template",
        samples.failed_condition_checks,
        "Units whose last start was skipped by a condition that should have held.",
    ),
    _gauge(
        "microvm_stray_tap_devices",
        "",
        samples.stray_tap_devices,
        "TAP devices of the microvm user that no MicroVM claims.",
    ),
    _gauge(
        "microvm_unit_templates",
        "",
        samples.unit_templates,
        "Template unit files of microvm.nix that are installed.",
    ),
    _gauge(
        "microvm_drifted_vms",
        "",
        samples.drifted_vms,
        "MicroVMs with at least one finding.",
    ),
    _gauge(
        "microvm_drift_findings",
        "kind",
        samples.drift_findings,
        "Findings by kind of drift.",
    ),
    _gauge(
        "microvm_drift_finding",
        "kind severity vm object",
        samples.drift_finding,
        "A finding: 1 while it lasts.",
    ),
    _gauge(
        "microvm_vm_info",
        "vm origin hypervisor autostart",
        PerVm(_ALL_OF_VM, samples.vm_info),
        "A declared or present MicroVM, always 1.",
    ),
    _gauge(
        "microvm_vm_running",
        "vm",
        PerVm(_UNITS, samples.vm_running),
        "Whether microvm@VM is active.",
    ),
    _gauge(
        "microvm_vm_start_time_seconds",
        "vm",
        PerVm(_UNITS, samples.vm_start_time),
        "Unix time at which microvm@VM became active.",
    ),
    _counter(
        "microvm_vm_restarts_total",
        "vm",
        PerVm(_UNITS, samples.vm_restarts),
        "Automatic restarts of microvm@VM since it was last started (systemd's NRestarts).",
    ),
    _gauge(
        "microvm_exporter_build_info",
        "version python_version",
        samples.build_info,
        "Version of the exporter and of the Python it runs on, always 1.",
    ),
    _gauge(
        "microvm_exporter_collector_success",
        "collector",
        samples.collector_success,
        "Whether the collector could read its source.",
    ),
    _gauge(
        "microvm_exporter_collector_duration_seconds",
        "collector",
        samples.collector_duration,
        "Duration of the collector's last run.",
    ),
    _gauge(
        "microvm_exporter_collector_last_success_timestamp_seconds",
        "collector",
        samples.collector_last_success,
        "Unix time at which the collector last read its source.",
    ),
    _gauge(
        "microvm_exporter_collector_following",
        "collector",
        samples.collector_following,
        "Whether the collector follows changes as they happen;"
        " if not (0), it reads everything each interval.",
    ),
    _counter(
        "microvm_exporter_events_total",
        "collector",
        samples.events,
        "Events that told the collector of a change.",
    ),
    _counter(
        "microvm_exporter_missed_changes_total",
        "",
        samples.missed_changes,
        "Changes that a resync found and of which no event had told; should stay 0.",
    ),
    _gauge(
        "microvm_exporter_left_out_objects",
        "collector reason",
        samples.left_out,
        "Objects left out, by reason: beyond the limit, unreadable, or with a name that no unit can"
        " have. Absent where there are none.",
    ),
    _counter(
        "microvm_exporter_refreshes_total",
        "cause",
        samples.refreshes,
        "Snapshots published, by cause: an event, the interval, or a resync,"
        " which reads everything again.",
    ),
    Metric(
        "microvm_exporter_event_to_publish_seconds",
        MetricType.HISTOGRAM,
        "Time from an event to the published snapshot that shows it.",
        (),
        samples.event_to_publish,
    ),
    _gauge(
        "microvm_exporter_last_refresh_timestamp_seconds",
        "",
        samples.last_refresh,
        "Unix time at which the snapshot being served was taken.",
    ),
)
