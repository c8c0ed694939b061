"""Recorded series: what a dashboard of a thousand hosts asks for, and what alerts look back on.

They tell what is seen now, so a host whose collector failed is not in them.
"""

from __future__ import annotations

from microvm_alerts.drift import LAST_SEEN
from microvm_alerts.rules import Group, Record
from microvm_alerts.settings import Settings

__all__ = ["recording_group", "running_ratio"]


def recording_group(settings: Settings) -> Group:
    """Give the recorded series."""
    s = settings.selector
    job = f"by ({settings.job})"
    instance = f"by ({settings.host})"
    return Group(
        "microvm-recording",
        (
            Record("job:up:sum", f"sum {job} (up{{{s}}})"),
            Record("job:up:count", f"count {job} (up{{{s}}})"),
            Record("job:microvm_declared_vms:sum", f"sum {job} (microvm_declared_vms{{{s}}})"),
            Record("job:microvm_vm_running:sum", f"sum {job} (microvm_vm_running{{{s}}})"),
            Record("job:microvm_drifted_vms:sum", f"sum {job} (microvm_drifted_vms{{{s}}})"),
            Record(
                "job_kind:microvm_drift_findings:sum",
                f"sum by ({settings.job}, kind) (microvm_drift_findings{{{s}}})",
            ),
            Record(
                "job_collector:microvm_exporter_collector_success:avg",
                f"avg by ({settings.job}, collector) (microvm_exporter_collector_success{{{s}}})",
            ),
            Record(
                "instance:microvm_declared_vms:sum",
                f"sum {instance} (microvm_declared_vms{{{s}}})",
            ),
            Record(
                "instance:microvm_drift_findings:sum",
                f"sum {instance} (microvm_drift_findings{{{s}}})",
            ),
            Record(
                "instance_severity:microvm_drift_finding:count",
                f"count by ({settings.host}, severity) (microvm_drift_finding{{{s}}})",
            ),
            Record(
                "instance:microvm_vm_running:ratio",
                running_ratio(settings, f"microvm_vm_running{{{s}}}"),
            ),
            Record(
                "job:microvm_degraded_hosts:count",
                f"count {job} (\n"
                f'  count {instance} ({LAST_SEEN}{{{settings.recorded}, severity="critical"}})\n'
                "  or\n"
                f"  max {instance} (up{{{s}}}) == 0\n"
                ")",
            ),
        ),
    )


def running_ratio(settings: Settings, running: str) -> str:
    """Of each host's declared MicroVMs that start automatically, the share that is up."""
    origins = 'origin=~"declarative|flake|deployed"'
    return (
        f"avg by ({settings.host}) (\n"
        f"  {running}\n"
        f"  and on ({settings.host}, vm)\n"
        f'  microvm_vm_info{{{settings.selector}, autostart="true", {origins}}}\n'
        ")"
    )
