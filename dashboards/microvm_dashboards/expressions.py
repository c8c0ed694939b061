"""PromQL that more than one panel needs.

A failed collector's metrics are absent, so nothing here makes a zero out of nothing: zero is said
only where all collectors have looked, and left nothing out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from microvm_dashboards.remedies import BLIND, NUMBERS
from microvm_dashboards.selectors import HOST, any_of, series
from microvm_exporter.drift.kinds import Kind

__all__ = [
    "by_rank",
    "finding_remedies",
    "findings_since",
    "fleet_count",
    "host_count",
    "kinds_over_time",
    "left_out",
    "ranked",
    "ranked_findings",
    "remedies",
    "seen_whole",
    "sight",
    "systemd_asked",
    "uptime",
    "vm_states",
]

_RANKS: Final = {"critical": 3, "warning": 2, "info": 1}
_FINDING: Final = "microvm_drift_finding"
_SUCCESS: Final = "microvm_exporter_collector_success"
_NOT_SEEN: Final = 12  # of VM_STATES


def host_count(expression: str, scope: str) -> str:
    """What is counted; 0 when there is none and the host was seen whole; else nothing."""
    return f"{expression} or {seen_whole(scope)} - 1"


def fleet_count(expression: str, scope: str) -> str:
    """What is counted; 0 when there is none and every host was seen whole; else -1."""
    up = f"sum({series('job:up:sum', scope)})"
    targets = f"sum({series('job:up:count', scope)})"
    success = f"min({series('job_collector:microvm_exporter_collector_success:avg', scope)})"
    whole = f"({success} == 1 and {up} == {targets} unless on () {left_out(scope)})"
    return f"{expression} or {whole} - 1 or 0 * {targets} - 1"


def ranked(scope: str, *matchers: str) -> str:
    """Findings with their severity's rank: 3 critical, 2 warning, 1 info."""
    return by_rank(lambda severity: series(_FINDING, scope, *matchers, severity=severity))


def by_rank(select: Callable[[str], str]) -> str:
    """What is selected for each severity, all ones, with its rank."""
    return " or ".join(f"{number} * {select(name)}" for name, number in _RANKS.items())


def ranked_findings(scope: str) -> str:
    """Findings by rank; never empty: what could not be looked at is told too, as is success."""
    return f"max by (kind, vm, object) ({' or '.join((ranked(scope), *_blind(scope).values()))})"


def finding_remedies(scope: str) -> str:
    """For each row of `ranked_findings` the number of its remedy, which REMEDY_TEXTS knows."""
    numbered = (f"0 * {row} + {NUMBERS[kind]}" for kind, row in _blind(scope).items())
    return f"max by (kind, vm, object) ({remedies(_FINDING, scope)} or {' or '.join(numbered)})"


def remedies(metric: str, scope: str) -> str:
    """For each series of a metric with a label `kind` the number of that kind's remedy.

    Grafana gives a cell the height that its text needs only where the text stands for a number.
    """
    return " or ".join(f"0 * {series(metric, scope, kind=kind)} + {NUMBERS[kind]}" for kind in Kind)


def findings_since(scope: str) -> str:
    """For each row of `ranked_findings` when it began, in milliseconds.

    None for what began before the dashboard's time range, 0 for rows that are no findings. A gap of
    less than three minutes, as of a restart of the exporter, begins nothing anew.
    """
    found = series(_FINDING, scope)
    began = f"timestamp({found}) unless last_over_time({found}[3m] offset 1m)"
    rows = " or ".join(f"0 * {row}" for row in _blind(scope).values())
    return (
        f"max by (kind, vm, object)"
        f" (1000 * max_over_time(({began})[$__range:1m]) and {found} or {rows})"
    )


def kinds_over_time(scope: str, kinds: Iterable[Kind]) -> str:
    """Each kind's worst rank, 0 where none was found; 4 where it could not be judged."""
    counted = series("microvm_drift_findings", scope, any_of(kinds))
    ever = f"max by (kind) (last_over_time({counted}[$__range] @ end()))"
    return (
        f"max by (kind) ({ranked(scope, any_of(kinds))})"
        f" or on (kind) 0 * max by (kind) ({counted}) or on (kind) 0 * {ever} + 4"
    )


def vm_states(scope: str) -> str:
    """Each VM's state as a number: 1 running, +2 has findings, +4 should run, +8 not known.

    12 where systemd could not be asked, of VMs that were there in the dashboard's time range; the
    50 with most findings in it.
    """
    metric = series("microvm_vm_running", scope)
    running = f"max by (vm) ({metric})"
    ever = f"0 * max by (vm) (last_over_time({metric}[$__range] @ end()))"
    found = series(_FINDING, scope, 'vm!=""')
    drift = f"count by (vm) (last_over_time({found}[$__range] @ end()))"
    started, rested = (series("microvm_vm_info", scope, autostart=is_) for is_ in ("true", "false"))
    wanted = f"4 * max by (vm) ({started}) or 0 * max by (vm) ({rested}) or 0 * {running} + 8"
    return (
        f"({running} + on (vm) 2 * (count by (vm) ({found}) > bool 0 or 0 * {running})"
        f" + on (vm) ({wanted})"
        f" or on (vm) ({ever} + {_NOT_SEEN}) unless on () {systemd_asked(HOST)})"
        f" and on (vm) topk(50, {drift} or {ever})"
    )


def uptime(scope: str) -> str:
    """Seconds since each VM that runs was started."""
    started, running = (
        f"max by (vm) ({series(metric, scope)})"
        for metric in ("microvm_vm_start_time_seconds", "microvm_vm_running")
    )
    return f"time() - ({started} and on (vm) {running} == 1)"


def sight(scope: str) -> str:
    """Whether the exporter sees all, as a number that VM_STATES knows."""
    up = series("up", scope)
    seen = f"20 + ({seen_whole(scope)} or 0 * min({series(_SUCCESS, scope)}))"
    return f"{seen} or 22 + max({up} == 0) or 22 + max(absent({up}))"


def seen_whole(scope: str) -> str:
    """1 where every collector has looked at everything, else nothing."""
    return f"(min({series(_SUCCESS, scope)}) == 1 unless on () {left_out(scope)})"


def left_out(scope: str) -> str:
    """How many objects collectors have left out, by reason; nothing where there are none.

    But for those whose name no unit can have: none of them is a MicroVM, and to ``check`` they make
    nothing unknown either.
    """
    return series("microvm_exporter_left_out_objects", scope, 'reason!="name"')


def systemd_asked(scope: str) -> str:
    """1 where systemd could be asked, else nothing."""
    return f"(min({series(_SUCCESS, scope, collector='systemd')}) == 1)"


def _blind(scope: str) -> dict[str, str]:
    """Rows that are no findings, by kind: rank 4 where it could not be looked, 0 when all is well.

    What could not be looked at concerns the host, whatever VM is asked about.
    """
    success, up = series(_SUCCESS, HOST), series("up", HOST)
    nothing = f"({seen_whole(HOST)} - 1) unless on () {series(_FINDING, scope)}"
    rows = {
        "could_not_look": _object("collector", f"({success} == 0) + 4"),
        "left_out": _reason(f"0 * {left_out(HOST)} + 4"),
        "no_answer": _object("instance", f"({up} == 0) + 4"),
        "no_target": _object("instance", f"absent({up}) + 3"),
        "nothing_found": nothing,
    }
    assert rows.keys() == BLIND.keys()
    return {kind: f'label_replace({row}, "kind", "{kind}", "", "")' for kind, row in rows.items()}


def _object(label: str, expression: str) -> str:
    return f'label_replace({expression}, "object", "$1", "{label}", "(.*)")'


def _reason(expression: str) -> str:
    return f'label_join({expression}, "object", ": ", "collector", "reason")'
