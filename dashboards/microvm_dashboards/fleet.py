"""Fleet: which hosts drift, what kind of drift it is, and whether it gets better or worse.

Stands on the recorded series, so that it stays small with a thousand hosts; what is told of single
hosts is asked for one moment, and of the worst of them.
"""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import left_out
from microvm_dashboards.fleet_kinds import NO_FINDING, firing_alerts, kinds, kinds_over_time
from microvm_dashboards.fleet_series import (
    ANSWERING,
    BY_HOST,
    BY_SEVERITY,
    DECLARED,
    DRIFTED,
    GONE,
    HOST,
    LOOKED,
    RATIO,
    RUNNING,
    SUCCESS,
    TARGETS,
    UP,
)
from microvm_dashboards.fleet_tiles import tiles
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import FINDING_COUNTS
from microvm_dashboards.no_data import NO_RULES
from microvm_dashboards.panels import (
    Column,
    Panel,
    Text,
    colour_by_name,
    graph,
    panel_table,
    timeline,
)
from microvm_dashboards.queries import as_table, over_time
from microvm_dashboards.selectors import FLEET, series
from microvm_dashboards.steps import marked

__all__ = ["page"]

_NO_FINDING: Final = f"{BY_HOST} == 0"
_CUT: Final = left_out(FLEET)
# Of the collectors of a job, the one that failed on most hosts: so many are blind at least. And
# those that would else be counted as hosts without a finding, but have left something out.
_FAILED: Final = (
    f"sum(max by (cluster, job) (round((1 - {LOOKED}) * on (cluster, job) group_left () {UP})))"
)
_CUT_ALONE: Final = f"({_CUT} unless on ({HOST}) {SUCCESS} == 0)"
_BLIND: Final = f"{_FAILED} + (count({_NO_FINDING} and on ({HOST}) {_CUT_ALONE}) or 0 * {_FAILED})"


def page() -> Page:
    """The dashboard."""
    return Page(
        uid="microvm-fleet",
        description="Which hosts drift from what they declare, what kind of drift it is, and"
        " whether it gets better or worse. Stands on the recording rules of this project.",
        time="24h",
        variables=variables.of_fleet(),
        annotations=[
            marks.fleet_alerts(FLEET),
            marks.declaration_of_fleet(FLEET),
            marks.restarts_of_fleet(FLEET),
        ],
        sections=[
            Section("Is all well?", tiles()),
            Section(
                "Which hosts?",
                [
                    Line(8, [(24, _hosts())]),
                    Line(8, [(13, _worst()), (11, _silent())]),
                ],
            ),
            Section("Better or worse?", [Line(8, [(12, _findings()), (12, _conditions())])]),
            Section(
                "What kind?",
                [
                    Line(10, [(24, kinds())]),
                    Line(9, [(12, kinds_over_time()), (12, firing_alerts())]),
                ],
            ),
            Section("What runs?", [Line(7, [(15, _machines()), (9, _versions())])]),
        ],
    )


def _hosts() -> Panel:
    of = {name: series(BY_SEVERITY, FLEET, severity=name) for name in colours.SEVERITIES}
    score = f"1e6 * {of['critical']} or 1e3 * {of['warning']} or 1 * {of['info']}"
    worst = f"topk(10, sum by ({HOST}) ({score}))"
    wanted = (
        *(f"sum by ({HOST}) ({found}) or on ({HOST}) 0 * {worst}" for found in of.values()),
        f"{BY_HOST} - {BY_HOST} offset $__range",
        f"sum by ({HOST}) ({RATIO})",
    )
    return panel_table(
        Text(
            "Hosts to look at first",
            "The ten worst hosts, by critical findings, then warnings, then the rest. *Change* is"
            " the number of findings against the start of the time range: below zero it gets"
            " better. A host leads to its own dashboard, with what to do.",
            NO_FINDING,
        ),
        [as_table(f"({one}) and on ({HOST}) {worst}") for one in wanted],
        [
            Column("instance", "Host", links=[links.to_host("__data.fields.instance")]),
            Column("cluster", "Cluster", width=130),
            Column("Value #A", "Critical", width=100, steps=marked(colours.CRITICAL), filled=True),
            Column("Value #B", "Warning", width=100, steps=marked(colours.WARNING), filled=True),
            Column("Value #C", "Info", width=100, steps=marked(colours.INFO), filled=True),
            Column("Value #D", "Change", width=100),
            Column("Value #E", "Autostart kept", width=140, unit="percentunit", decimals=0),
        ],
        sort=("Critical", "Warning", "Info"),
        paged=True,
    )


def _worst() -> Panel:
    ever = f"max_over_time({BY_HOST}[$__range] @ end()) > 0"
    return timeline(
        Text(
            "Findings by host",
            "Findings over time on the ten hosts that had the most in the time range. Where nothing"
            " is drawn the host was not heard of.",
            "No finding in this time on the hosts that were heard of",
        ),
        [over_time(f"{BY_HOST} and on ({HOST}) topk(10, {ever})", "{{instance}}")],
        mappings=FINDING_COUNTS,
        links=[links.to_host("__field.labels.instance")],
    )


def _silent() -> Panel:
    failed = f"{SUCCESS} == 0"
    rows = (
        _because("no answer", f"{ANSWERING} == 0"),
        _because("no target", GONE),
        f'label_replace({failed}, "why", "$1 failed", "collector", "(.*)")',
        # Below zero, so after the others where there are more than twenty.
        f'label_replace(0 * {_CUT} - 1, "why", "$1 incomplete", "collector", "(.*)")',
    )
    return panel_table(
        Text(
            "Hosts not seen whole",
            "Hosts that do not answer, that are no target any more since a day or less, or a"
            " collector of which failed or left something out: they may have drift that nobody"
            " sees. Twenty at most. A host leads to its exporter.",
            "All targets answer, and all their collectors look at everything",
        ),
        [as_table(f"topk(20, sum by ({HOST}, why) ({' or '.join(rows)}))")],
        [
            Column("instance", "Host", links=[links.to_exporter("__data.fields.instance")]),
            Column("why", "Why", width=175),
        ],
    )


def _because(why: str, expression: str) -> str:
    return f'label_replace({expression}, "why", "{why}", "", "")'


def _findings() -> Panel:
    panel = graph(
        Text(
            "Findings by severity",
            "All findings of the fleet. A rising edge after a deployment is what it left behind or"
            " broke. What cannot be looked at is missing: a drop together with hosts that do not"
            " answer is no mend.",
            "No finding in this time, or no recorded series: see the tiles above",
        ),
        [
            over_time(f"sum({series(BY_SEVERITY, FLEET, severity=name)})", name)
            for name in colours.SEVERITIES
        ],
        stacked=True,
        decimals=0,
    )
    return colour_by_name(panel, colours.SEVERITIES)


def _conditions() -> Panel:
    panel = graph(
        Text(
            "Hosts by condition",
            "How many hosts show findings, how many none, how many do not answer, and on how many"
            " at least some collector could not look at everything: those are not counted as *none"
            " found*.",
            NO_RULES,
        ),
        [
            over_time(f"sum({TARGETS}) - sum({UP})", "no answer"),
            over_time(f"count({BY_HOST} > 0) or 0 * count({BY_HOST})", "with findings"),
            over_time(_BLIND, "partly blind"),
            over_time(
                f"clamp_min((count({_NO_FINDING} unless on ({HOST}) {_CUT_ALONE})"
                f" or 0 * count({BY_HOST})) - {_FAILED}, 0)",
                "none found",
            ),
        ],
        stacked=True,
        decimals=0,
    )
    return colour_by_name(
        panel,
        {
            "no answer": colours.CRITICAL,
            "partly blind": colours.UNKNOWN,
            "with findings": colours.WARNING,
            "none found": colours.GOOD,
        },
    )


def _machines() -> Panel:
    panel = graph(
        Text(
            "MicroVMs",
            "Declared, running and drifted MicroVMs of the fleet. A host that does not answer takes"
            " its MicroVMs out of all three.",
            NO_RULES,
        ),
        [
            over_time(f"sum({DECLARED})", "declared"),
            over_time(f"sum({RUNNING})", "running"),
            over_time(f"sum({DRIFTED})", "drifted"),
        ],
        decimals=0,
    )
    names = {"declared": colours.NEUTRAL, "running": colours.GOOD, "drifted": colours.WARNING}
    return colour_by_name(panel, names)


def _versions() -> Panel:
    build = series("microvm_exporter_build_info", FLEET)
    return panel_table(
        Text(
            "Versions",
            "Versions of the exporter on how many hosts. More than one for long means that a host"
            " does not get its updates.",
            "No exporter answers",
        ),
        [as_table(f"count by (version, python_version) ({build})")],
        [
            Column("version", "Exporter", least=95),
            Column("python_version", "Python", least=80),
            Column("Value", "Hosts", least=75),
        ],
        sort=("Hosts",),
    )
