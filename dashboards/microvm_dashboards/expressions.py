"""PromQL that more than one panel needs.

A failed collector's metrics are absent, so nothing here makes a zero out of nothing: zero is said
only where all collectors have looked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from microvm_dashboards.selectors import HOST, any_of, series
from microvm_exporter.drift.kinds import Kind

__all__ = [
    "fleet_count",
    "host_count",
    "ranked",
    "ranked_findings",
    "sight",
    "since",
    "vm_states",
]

_RANKS: Final = {"critical": 3, "warning": 2, "info": 1}
_SUCCESS: Final = "microvm_exporter_collector_success"


def host_count(expression: str, scope: str) -> str:
    """What is counted; 0 when there is none and all collectors have looked; else nothing."""
    return f"{expression} or (min({series(_SUCCESS, scope)}) == 1) - 1"


def fleet_count(expression: str, scope: str) -> str:
    """What is counted; 0 when there is none and every host was seen whole; else -1."""
    up = f"sum({series('job:up:sum', scope)})"
    targets = f"sum({series('job:up:count', scope)})"
    success = f"min({series('job_collector:microvm_exporter_collector_success:avg', scope)})"
    return f"{expression} or ({success} == 1 and {up} == {targets}) - 1 or 0 * {targets} - 1"


def ranked(scope: str, *matchers: str) -> str:
    """Findings with their severity's rank: 3 critical, 2 warning, 1 info."""
    return " or ".join(
        f"{number} * " + series("microvm_drift_finding", scope, *matchers, severity=name)
        for name, number in _RANKS.items()
    )


def ranked_findings(scope: str, kinds: Iterable[Kind] | None = None) -> str:
    """Findings by rank; never empty: what could not be looked at is told too, as is success."""
    some = () if kinds is None else (any_of(kinds),)
    findings = series("microvm_drift_finding", scope, *some)
    success, up = series(_SUCCESS, HOST), series("up", HOST)
    rows = (
        ranked(scope, *some),
        _row("could_not_look", _object("collector", f"({success} == 0) + 4")),
        _row("no_answer", _object("instance", f"({up} == 0) + 4")),
        _row("no_target", f"absent({up}) + 3"),
        _row("nothing_found", f"((min({success}) == 1) - 1) unless on () {findings}"),
    )
    return _with_remedy(f"max by (kind, vm, object) ({' or '.join(rows)})")


def since(scope: str, kinds: Iterable[Kind] | None = None) -> str:
    """When each finding was first seen in the dashboard's time range, in milliseconds."""
    some = () if kinds is None else (any_of(kinds),)
    findings = series("microvm_drift_finding", scope, *some)
    first = f"min_over_time(timestamp({findings})[$__range:1m])"
    return _with_remedy(
        f"1000 * min by (kind, vm, object) (({first} or timestamp({findings})) and {findings})"
    )


def vm_states(scope: str) -> str:
    """Each VM's state as a number: 1 running, +2 has findings, +4 should run, +8 not known."""
    running = f"max by (vm) ({series('microvm_vm_running', scope)})"
    found = series("microvm_drift_finding", scope, 'vm!=""')
    findings = f"count by (vm) ({found}) > bool 0"
    started = series("microvm_vm_info", scope, autostart="true")
    rested = series("microvm_vm_info", scope, autostart="false")
    wanted, unwanted = f"4 * max by (vm) ({started})", f"0 * max by (vm) ({rested})"
    return (
        f"{running} + on (vm) 2 * ({findings} or 0 * {running})"
        f" + on (vm) ({wanted} or {unwanted} or 0 * {running} + 8)"
    )


def sight(scope: str) -> str:
    """21 when the exporter sees all, 20 when a collector fails, 22 when it does not answer."""
    return f"20 + min({series(_SUCCESS, scope)}) or 22 + max({series('up', scope)} == 0)"


def _row(kind: str, expression: str) -> str:
    return f'label_replace({expression}, "kind", "{kind}", "", "")'


def _object(label: str, expression: str) -> str:
    return f'label_replace({expression}, "object", "$1", "{label}", "(.*)")'


def _with_remedy(expression: str) -> str:
    return f'label_replace({expression}, "remedy", "$1", "kind", "(.*)")'
