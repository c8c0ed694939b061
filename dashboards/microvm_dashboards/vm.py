"""VM: the life of one MicroVM: running, restarts, findings, its units."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import links, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import ranked, seen_whole, sight, uptime, vm_states
from microvm_dashboards.findings import findings_table
from microvm_dashboards.host_tiles import exporter_tile
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import (
    ALERT_STATES,
    LASTING,
    SEVERITIES,
    VM_STATES,
)
from microvm_dashboards.no_data import NO_HOST
from microvm_dashboards.panels import Column, Panel, Text, graph, panel_table, timeline
from microvm_dashboards.queries import as_table, over_time
from microvm_dashboards.selectors import HOST, VM, alerts, series
from microvm_dashboards.steps import LOOPS
from microvm_dashboards.vm_tiles import tiles

__all__ = ["page"]

_FOUND: Final = series("microvm_drift_finding", VM)
_INFO: Final = series("microvm_vm_info", VM)
_RESTARTS: Final = series("microvm_vm_restarts_total", VM)
_UP: Final = series("up", HOST)

_NOT_ASKED: Final = "unknown: its unit is not loaded, or systemd could not be asked"


def page() -> Page:
    """The dashboard."""
    return Page(
        uid="microvm-vm",
        description="The life of one MicroVM: whether it runs and since when, its restarts, its"
        " findings and what to do about them, and what was found on its units.",
        time="24h",
        variables=variables.of_vm(),
        annotations=[marks.alerts(VM), marks.declaration_of_host(HOST), marks.restarts(VM)],
        sections=[
            Section(
                "How is it?", [Line(4, tiles()), Line(4, [(18, _facts()), (6, exporter_tile())])]
            ),
            Section("What to do", [Line(6, [(24, _findings())])]),
            Section(
                "Its life",
                [
                    Line(6, [(24, _state())]),
                    Line(8, [(12, _restarts()), (12, _uptime())]),
                ],
            ),
            Section(
                "What was found, and when",
                [
                    Line(7, [(24, _over_time())]),
                    Line(9, [(24, _units())]),
                    Line(6, [(24, _objects())]),
                    Line(6, [(24, _alerts())]),
                ],
            ),
        ],
    )


def _facts() -> Panel:
    return panel_table(
        Text(
            "What it is",
            "Where it comes from, what runs it, and whether it starts with the host. *Undeclared*"
            " and *unknown* origins are what nobody vouches for.",
            "unknown: no such MicroVM, or a collector could not look",
        ),
        [as_table(f"max by (instance, origin, hypervisor, autostart) ({_INFO})")],
        [
            Column("instance", "Host", links=[links.to_host()]),
            Column("origin", "Origin"),
            Column("hypervisor", "Hypervisor"),
            Column("autostart", "Autostart"),
        ],
    )


def _findings() -> Panel:
    return findings_table(
        Text(
            "What to do",
            "Its findings, worst first, and what to do about each. *Earlier*: it began before the"
            " time range. For the exact commands run `microvm-exporter check` on the host.",
            NO_HOST,
        ),
        VM,
        with_vm=False,
    )


def _state() -> Panel:
    return timeline(
        Text(
            "State over time",
            "Its state, and whether the exporter could see it. *Unknown*: systemd could not be"
            " asked. Where nothing is drawn it was not there.",
            NO_HOST,
        ),
        [over_time(sight(HOST), "(exporter)"), over_time(vm_states(VM), "{{vm}}")],
        mappings=VM_STATES,
    )


def _restarts() -> Panel:
    return graph(
        Text(
            "Automatic restarts within 30 minutes",
            "How often systemd restarted it within the 30 minutes before. From 5 on (the line) it"
            " is a crash loop. A stop and a start by hand are none.",
            _NOT_ASKED,
        ),
        [over_time(f"sum(increase({_RESTARTS}[30m]))", "restarts")],
        steps=LOOPS,
        decimals=0,
    )


def _uptime() -> Panel:
    return graph(
        Text(
            "Runs for, over time",
            "Time since its last start. A fall to zero is a start; a gap is when it did not run or"
            " nothing was known.",
            "It did not run in this time, or systemd could not be asked",
        ),
        [over_time(uptime(VM), "runs for")],
        "s",
    )


def _over_time() -> Panel:
    worst = f"max({ranked(VM)}) or {seen_whole(HOST)} - 1"
    unknown = f"0 * max({_UP}) + 4 or 3 + max(absent({_UP}))"
    return timeline(
        Text(
            "Findings over time",
            "Each kind of finding while it lasted. The first row is the worst of all: *none* means"
            " that every collector had looked at everything, *unknown* that one had not, or that"
            " the exporter did not answer.",
            NO_HOST,
        ),
        [
            over_time(f"{worst} or {unknown}", "(worst)"),
            over_time(f"max by (kind) ({ranked(VM)})", "{{kind}}"),
        ],
        mappings=SEVERITIES,
    )


def _units() -> Panel:
    checks = series("microvm_failed_condition_checks", HOST)
    templates = f"0 * max by (template) ({checks})"
    ever = f"0 * max by (template) (last_over_time({checks}[$__range] @ end()))"
    template = r"(install-microvm-|[a-z-]+@).*\\.service"
    found = (
        f'max by (template) (label_replace({ranked(VM)}, "template", "$1", "object", "{template}"))'
    )
    return timeline(
        Text(
            "Findings on its units",
            "What was found on each unit of it; the exporter publishes no more of a single unit:"
            " for its state see `systemctl list-units --all 'microvm*@NAME.service'`. *None*:"
            " looked, and found none, also where a unit is not loaded. *Unknown*: systemd or the"
            " state directory could not be read, or the exporter did not answer.",
            NO_HOST,
        ),
        [
            over_time(
                f"({found} and on (template) {ever}) or {templates} or {ever} + 4", "{{template}}"
            )
        ],
        mappings=SEVERITIES,
    )


def _objects() -> Panel:
    lasted = f"count_over_time({_FOUND}[$__range:1m])"
    return panel_table(
        Text(
            "Units, devices and paths that had findings",
            "On what something was found in the time range, for how long in all, and whether it"
            " still is.",
            "No finding on it in this time, as far as was looked: see the first row above",
        ),
        [
            as_table(f"60 * sum by (kind, object) ({lasted})"),
            as_table(
                f"max by (kind, object) ({_FOUND})"
                f" or 0 * sum by (kind, object) ({lasted}) and on () {seen_whole(HOST)}"
            ),
        ],
        [
            Column("object", "Object", wrapped=True),
            Column("kind", "Kind", width=180),
            Column("Value #A", "In all", width=110, unit="s", decimals=1),
            Column("Value #B", "Now", width=100, mappings=LASTING, filled=True),
        ],
        sort=("In all",),
    )


def _alerts() -> Panel:
    pending, firing = (
        f"max by (alertname) ({alerts(VM, state)})" for state in ("pending", "firing")
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
