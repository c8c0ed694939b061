"""Host: what to fix first and how, every MicroVM's state over time, strays and leftovers."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import (
    host_count,
    kinds_over_time,
    seen_whole,
    sight,
    uptime,
    vm_states,
)
from microvm_dashboards.findings import findings_table
from microvm_dashboards.host_tiles import findings_tiles, host_tiles
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import COUNTS, SEVERITIES, VM_STATES
from microvm_dashboards.no_data import NO_HOST, NO_SYSTEMD, NOT_WHOLE
from microvm_dashboards.panels import (
    Column,
    Panel,
    Text,
    colour_by_name,
    graph,
    link_by_name,
    panel_table,
    timeline,
)
from microvm_dashboards.queries import as_table, over_time
from microvm_dashboards.remedies import FAULTS, LEFTOVERS, STRAYS
from microvm_dashboards.selectors import HOST, series
from microvm_dashboards.steps import LOOPS
from microvm_exporter.drift.kinds import Kind

__all__ = ["page"]

_RESTARTS: Final = series("microvm_vm_restarts_total", HOST)
_CONDITIONS: Final = series("microvm_failed_condition_checks", HOST)
_ANY: Final = "(most of any)"
_STATE_COLOURS: Final = {
    "active": colours.GOOD,
    "inactive": colours.OFF,
    "failed": colours.CRITICAL,
    "activating": colours.WARNING,
    "deactivating": colours.INFO,
}


def page() -> Page:
    """The dashboard."""
    return Page(
        uid="microvm-host",
        description="What to fix first on one host: findings with what to do about them, the state"
        " of every MicroVM over time, stray devices and leftovers.",
        time="6h",
        variables=variables.of_host(),
        annotations=[marks.alerts(HOST), marks.declaration_of_host(HOST), marks.restarts(HOST)],
        sections=[
            Section("Is all well?", [Line(3, findings_tiles()), Line(3, host_tiles())]),
            Section("What to fix first", [Line(16, [(24, _findings())])]),
            Section("MicroVMs", [Line(13, [(24, _states())]), Line(12, [(24, _machines())])]),
            Section("Better or worse?", [Line(8, [(12, _by_severity()), (12, _restarts())])]),
            Section(
                "What kind of drift?",
                [Line(12, [(12, _faults()), (12, _strays_and_leftovers())])],
            ),
            Section("Units", [Line(9, [(8, _units()), (16, _conditions())])]),
        ],
    )


def _findings() -> Panel:
    return findings_table(
        Text(
            "What to fix first",
            "All findings, worst first, and what to do about each. *Earlier*: it began before the"
            " time range. For the exact commands run `microvm-exporter check` on the host. A"
            " MicroVM leads to its own dashboard.",
            NO_HOST,
        ),
        HOST,
        with_vm=True,
    )


def _states() -> Panel:
    panel = timeline(
        Text(
            "MicroVMs over time",
            "The state of each MicroVM, of the 50 with most findings. *Down*: it should run and"
            " does not. *Stopped*: it does not run, and need not. *Findings*: it has drift, see"
            " above. *Unknown*: systemd could not be asked. Where nothing is drawn the MicroVM was"
            " not there. The first row is the exporter. A row leads to its MicroVM.",
            NO_HOST,
        ),
        [over_time(sight(HOST), "(exporter)"), over_time(vm_states(HOST), "{{vm}}")],
        mappings=VM_STATES,
        links=[links.to_vm("__field.labels.vm")],
    )
    return link_by_name(panel, "(exporter)", links.to_exporter())


def _machines() -> Panel:
    states = vm_states(HOST)
    facts = series("microvm_vm_info", HOST)
    found = series("microvm_drift_finding", HOST)
    columns = (
        states,
        f"count by (vm) ({found}) and on (vm) ({states})"
        f" or on (vm) 0 * ({states}) and on () {seen_whole(HOST)}",
        uptime(HOST),
        f"round(sum by (vm) (increase({_RESTARTS}[$__range]))) and on (vm) ({states})",
        f"max by (vm, origin, hypervisor, autostart) ({facts}) and on (vm) ({states})",
    )
    return panel_table(
        Text(
            "All MicroVMs",
            "Each MicroVM of the host (the 50 with most findings), declared or not: its state, how"
            " long it runs, its automatic restarts in the time range, and where it comes from.",
            "No MicroVM in this time, if the exporter answers: see the tiles above",
        ),
        [as_table(one) for one in columns],
        [
            Column("vm", "MicroVM", links=[links.to_vm("__data.fields.vm")]),
            Column("Value #A", "State", mappings=VM_STATES, filled=True),
            Column("Value #B", "Findings", left=True),
            Column("Value #C", "Runs for", unit="s", decimals=1, left=True),
            Column("Value #D", "Restarts", left=True),
            Column("origin", "Origin"),
            Column("hypervisor", "Hypervisor"),
            Column("autostart", "Autostart"),
        ],
        sort=("Findings",),
        first_by="vm",
        paged=True,
    )


def _by_severity() -> Panel:
    of = {
        name: f"count({series('microvm_drift_finding', HOST, severity=name)})"
        for name in reversed(colours.SEVERITIES)
    }
    panel = graph(
        Text(
            "Findings by severity",
            "Findings over time. A gap is where a collector could not look at everything, or the"
            " exporter did not answer: nothing is known then, and a fall at its edge is no mend.",
            NOT_WHOLE,
        ),
        [over_time(host_count(count, HOST), name) for name, count in of.items()],
        decimals=0,
    )
    return colour_by_name(panel, colours.SEVERITIES)


def _restarts() -> Panel:
    within = f"sum by (vm) (increase({_RESTARTS}[30m]))"
    ever = f"topk(10, sum by (vm) (increase({_RESTARTS}[$__range] @ end())) > 0.5)"
    panel = graph(
        Text(
            "Automatic restarts within 30 minutes",
            "How often systemd restarted a MicroVM within the 30 minutes before, the ten with"
            " most. From 5 on (the line) it is a crash loop: systemd tries for ever, and never"
            " calls it failed.",
            NO_SYSTEMD,
        ),
        [
            over_time(f"max({within})", _ANY),
            over_time(f"{within} and on (vm) {ever}", "{{vm}}"),
        ],
        steps=LOOPS,
        links=[links.to_vm("__field.labels.vm")],
        decimals=0,
    )
    return link_by_name(colour_by_name(panel, {_ANY: colours.OFF}), _ANY)


def _faults() -> Panel:
    return _kinds("Faults", "Kinds of drift that keep MicroVMs from being as declared", FAULTS)


def _strays_and_leftovers() -> Panel:
    return _kinds(
        "Strays and leftovers",
        "Devices and helpers without their MicroVM, and what removed MicroVMs left behind",
        STRAYS | LEFTOVERS,
    )


def _kinds(title: str, meaning: str, kinds: frozenset[Kind]) -> Panel:
    return timeline(
        Text(
            title,
            f"{meaning}, by the worst finding of each kind. *None*: looked, and found none."
            " *Unknown*: a source that it is judged from could not be read, or the exporter did not"
            " answer. Whether anything was left out, *Exporter* tells.",
            NO_HOST,
        ),
        [over_time(kinds_over_time(HOST, kinds), "{{kind}}")],
        mappings=SEVERITIES,
    )


def _units() -> Panel:
    panel = graph(
        Text(
            "Units by state",
            "Loaded units of all templates, as `systemctl list-units --all 'microvm*@*'"
            " 'install-microvm-*'` lists them. Helpers of devices that a MicroVM does not have are"
            " inactive, and that is normal; failed ones are findings, but for those that every"
            " stop leaves behind.",
            NO_SYSTEMD,
        ),
        [over_time(f"sum by (state) ({series('microvm_present_units', HOST)})", "{{state}}")],
        stacked=True,
        decimals=0,
    )
    return colour_by_name(panel, _STATE_COLOURS)


def _conditions() -> Panel:
    ever = f"max by (template) (last_over_time({_CONDITIONS}[$__range] @ end()))"
    return timeline(
        Text(
            "Failed condition checks by template",
            "Units of each template whose last start was skipped by a condition that should have"
            " held. *Unknown*: systemd or the state directory could not be read, or the exporter"
            " did not answer.",
            NO_HOST,
        ),
        [
            over_time(
                f"max by (template) ({_CONDITIONS}) or on (template) 0 * {ever} - 1",
                "{{template}}",
            )
        ],
        mappings=COUNTS,
    )
