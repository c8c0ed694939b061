"""What the fleet's dashboard stands on: recorded series, and the few that are not."""

from __future__ import annotations

from typing import Final

from microvm_dashboards.selectors import FLEET, series

__all__ = [
    "ANSWERING",
    "BY_HOST",
    "BY_KIND",
    "BY_SEVERITY",
    "DECLARED",
    "DRIFTED",
    "GONE",
    "HOST",
    "LOOKED",
    "RATIO",
    "RUNNING",
    "SUCCESS",
    "TARGETS",
    "UP",
]

UP: Final = series("job:up:sum", FLEET)
TARGETS: Final = series("job:up:count", FLEET)
DECLARED: Final = series("job:microvm_declared_vms:sum", FLEET)
RUNNING: Final = series("job:microvm_vm_running:sum", FLEET)
DRIFTED: Final = series("job:microvm_drifted_vms:sum", FLEET)
LOOKED: Final = series("job_collector:microvm_exporter_collector_success:avg", FLEET)

HOST: Final = "cluster, job, instance"
BY_HOST: Final = series("instance:microvm_drift_findings:sum", FLEET)
RATIO: Final = series("instance:microvm_vm_running:ratio", FLEET)

BY_SEVERITY: Final = "instance_severity:microvm_drift_finding:count"
BY_KIND: Final = "job_kind:microvm_drift_findings:sum"

ANSWERING: Final = series("up", FLEET)
SUCCESS: Final = series("microvm_exporter_collector_success", FLEET)
GONE: Final = f"last_over_time({ANSWERING}[1d]) unless on ({HOST}) {ANSWERING}"
"""Hosts that Prometheus has ceased to scrape within a day, as MicrovmExporterGone has it."""
