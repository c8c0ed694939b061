"""VM: the life of one MicroVM: running, restarts, findings, its units."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import host_count, ranked, sight, vm_states
from microvm_dashboards.findings import findings_table
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import ALERT_STATES, SEVERITIES, SIGHT, VM_STATES
from microvm_dashboards.panels import (
    Column,
    Panel,
    Text,
    graph,
    panel_table,
    tile,
    timeline,
)
from microvm_dashboards.queries import as_table, now, over_time
from microvm_dashboards.selectors import HOST, VM, series

__all__ = ["page"]

_RESTARTS: Final = series("microvm_vm_restarts_total", VM)
_OURS: Final = 'alertname=~"Microvm.+"'
_START: Final = series("microvm_vm_start_time_seconds", VM)


def page() -> Page:
    """The dashboard."""
    return Page(
        uid="microvm-vm",
        description="The life of one MicroVM: whether it runs and since when, its restarts, its"
        " findings and what was found on each of its units.",
        time="24h",
        variables=variables.of_vm(),
        annotations=[marks.alerts(VM), marks.declaration_of_host(HOST), marks.restarts(VM)],
        sections=[
            Section("How is it?", [Line(4, _tiles())]),
            Section("What to do", [Line(8, [(24, _findings())])]),
            Section(
                "Its life",
                [
                    Line(5, [(24, _state())]),
                    Line(8, [(12, _restarts()), (12, _uptime())]),
                ],
            ),
            Section(
                "What was found, and when",
                [Line(9, [(12, _over_time()), (12, _units())]), Line(6, [(24, _alerts())])],
            ),
        ],
    )


def _tiles() -> list[tuple[int, Panel]]:
    tiles = (_now(), _runs_for(), _restarted(), _found(), _exporter(), _facts())
    return list(zip((4, 4, 4, 3, 3, 6), tiles, strict=True))


def _now() -> Panel:
    return tile(
        Text(
            "State",
            "Whether it runs. *Down*: it should run by itself and does not. *Stopped*: it need not"
            " run. *Findings*: it has drift, see below.",
            "unknown: no such MicroVM, or systemd could not be asked",
        ),
        now(vm_states(VM)),
        mappings=VM_STATES,
    )


def _runs_for() -> Panel:
    return tile(
        Text(
            "Runs for",
            "Time since it was started last. Unknown while it does not run.",
            "unknown: it does not run, or systemd could not be asked",
        ),
        now(f"time() - max({_START})"),
        "s",
        decimals=1,
    )


def _restarted() -> Panel:
    return tile(
        Text(
            "Restarts",
            "Automatic restarts in the time range. A few are a hiccup; more than that is a crash"
            " loop, which systemd never calls failed: read the journal of its microvm@ unit.",
            "unknown: its unit is not loaded, or systemd could not be asked",
        ),
        now(f"sum(increase({_RESTARTS}[$__range]))"),
        steps={0: colours.GOOD, 1: colours.WARNING, 5: colours.CRITICAL},
        decimals=0,
    )


def _found() -> Panel:
    return tile(
        Text(
            "Findings",
            "Its findings now. Green only when every collector has looked.",
            "unknown: some collector could not look, or the exporter does not answer",
        ),
        now(host_count(f"count({series('microvm_drift_finding', VM)})", HOST)),
        steps={0: colours.GOOD, 1: colours.WARNING},
    )


def _exporter() -> Panel:
    return tile(
        Text(
            "Exporter",
            "Whether the exporter of its host answers and all its collectors can look.",
            "no target: Prometheus does not scrape this host",
        ),
        now(sight(HOST)),
        mappings=SIGHT,
        links=[links.to_exporter()],
    )


def _facts() -> Panel:
    return panel_table(
        Text(
            "What it is",
            "Where it comes from, what runs it, and whether it starts with the host. *Undeclared*"
            " and *unknown* origins are what nobody vouches for.",
            "unknown: not present, or a collector could not look",
        ),
        [as_table(f"max by (origin, hypervisor, autostart) ({series('microvm_vm_info', VM)})")],
        [
            Column("origin", "Origin"),
            Column("hypervisor", "Hypervisor"),
            Column("autostart", "Autostart", width=90),
        ],
    )


def _findings() -> Panel:
    return findings_table(
        Text(
            "What to do",
            "Its findings, worst first, and what to do about each. For the exact commands run"
            " `microvm-exporter check` on the host.",
            "unknown: Prometheus has nothing of this host",
        ),
        VM,
        of_vm=True,
    )


def _state() -> Panel:
    return timeline(
        Text(
            "State over time",
            "Its state, and whether the exporter could see it. Where nothing is drawn, nothing is"
            " known.",
            "unknown: Prometheus has nothing of this host",
        ),
        [over_time(vm_states(VM), "{{vm}}"), over_time(sight(HOST), "exporter")],
        mappings=VM_STATES,
    )


def _restarts() -> Panel:
    return graph(
        Text(
            "Automatic restarts",
            "Restarts by systemd (`NRestarts`), at each point those since the one before. A stop"
            " and a start by hand are none.",
            "unknown: its unit is not loaded, or systemd could not be asked",
        ),
        [over_time(f"sum(increase({_RESTARTS}[$__rate_interval]))", "restarts")],
        bars=True,
        decimals=0,
    )


def _uptime() -> Panel:
    return graph(
        Text(
            "Runs for",
            "Time since its last start. A fall to zero is a start; a gap is when it did not run or"
            " nothing was known.",
            "It did not run in this time, or systemd could not be asked",
        ),
        [over_time(f"time() - max({_START})", "runs for")],
        "s",
    )


def _over_time() -> Panel:
    return timeline(
        Text(
            "Findings over time",
            "Each finding while it lasted, by kind and severity.",
            "Nothing was found on it in this time, as far as was looked",
        ),
        [over_time(f"max by (kind, object) ({ranked(VM)})", "{{kind}}: {{object}}")],
        mappings=SEVERITIES,
    )


def _units() -> Panel:
    checks = series("microvm_failed_condition_checks", HOST)
    templates = f"0 * max by (template) ({checks})"
    template = r"(install-microvm-|[a-z-]+@).*\\.service"
    found = (
        f'max by (template) (label_replace({ranked(VM)}, "template", "$1", "object", "{template}"))'
    )
    return timeline(
        Text(
            "Its units",
            "What was found on each unit of it: *fine* means that systemd was asked and nothing was"
            " found. A helper whose device it does not have rests and is fine.",
            "unknown: systemd could not be asked",
        ),
        [over_time(f"({found} and on (template) {templates}) or {templates}", "{{template}}")],
        mappings=SEVERITIES,
    )


def _alerts() -> Panel:
    pending, firing = (
        f"max by (alertname) ({series('ALERTS', VM, _OURS, alertstate=state)})"
        for state in ("pending", "firing")
    )
    return timeline(
        Text(
            "Alerts",
            "Alerts about it while they wait and while they fire. Each has a runbook.",
            "No alert about it in this time, if the alerting rules are loaded",
        ),
        [over_time(f"1 + {firing} or {pending}", "{{alertname}}")],
        mappings=ALERT_STATES,
    )
