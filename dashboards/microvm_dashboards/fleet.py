"""Fleet: which hosts drift, what kind of drift it is, and whether it gets better or worse.

Stands on the recorded series, so that it stays small with a thousand hosts; what is told of single
hosts is asked for one moment, and of the worst of them.
"""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import fleet_count, remedies
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import FINDING_COUNTS, REMEDY_TEXTS, SEVERITY_NAMES, words
from microvm_dashboards.panels import (
    Column,
    Panel,
    Steps,
    Text,
    colour_by_name,
    graph,
    panel_table,
    tile,
    timeline,
)
from microvm_dashboards.queries import as_table, now, over_time
from microvm_dashboards.selectors import FLEET, series

__all__ = ["page"]

_UP: Final = series("job:up:sum", FLEET)
_TARGETS: Final = series("job:up:count", FLEET)
_BY_KIND: Final = series("job_kind:microvm_drift_findings:sum", FLEET)
_BY_HOST: Final = series("instance:microvm_drift_findings:sum", FLEET)
_RATIO: Final = series("instance:microvm_vm_running:ratio", FLEET)
_DECLARED: Final = series("job:microvm_declared_vms:sum", FLEET)
_SUCCESS: Final = series("microvm_exporter_collector_success", FLEET)
_HOST: Final = "cluster, job, instance"
_ANSWERING: Final = series("up", FLEET)
_GONE: Final = f"last_over_time({_ANSWERING}[1d]) unless on ({_HOST}) {_ANSWERING}"

_BY_SEVERITY: Final = "instance_severity:microvm_drift_finding:count"

_NO_RULES: Final = "unknown: are the recording rules loaded?"
_NO_FINDING: Final = "No finding on the hosts that were looked at"
_NONE_WRONG: Final[Steps] = {-1: colours.UNKNOWN, 0: colours.GOOD, 1: colours.WARNING}
_NONE_BROKEN: Final[Steps] = {-1: colours.UNKNOWN, 0: colours.GOOD, 1: colours.CRITICAL}
_NONE_SEEN: Final = words({"-1": ("none seen", colours.UNKNOWN)})
_BLIND_SPOTS: Final = (
    " *none seen*: nothing was found, but some host does not answer or could not look at"
    " everything, so that there may be more."
)


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
        ],
        sections=[
            Section("Is all well?", _tiles()),
            Section(
                "Which hosts?",
                [
                    Line(7, [(24, _hosts())]),
                    Line(8, [(13, _worst()), (11, _silent())]),
                ],
            ),
            Section("Better or worse?", [Line(8, [(12, _findings()), (12, _conditions())])]),
            Section(
                "What kind?",
                [Line(9, [(24, _kinds())]), Line(9, [(12, _kinds_over_time()), (12, _alerts())])],
            ),
            Section("What runs?", [Line(7, [(15, _machines()), (9, _versions())])]),
        ],
    )


def _tiles() -> list[Line]:
    """Two lines: as one, their titles were cut on a narrow screen."""
    return [
        Line(3, [(8, _down()), (8, _blind()), (8, _kept())]),
        Line(3, [(8, _critical()), (8, _drifted()), (8, _vms())]),
    ]


def _down() -> Panel:
    return tile(
        Text(
            "Hosts not answering",
            "Hosts whose exporter does not answer, and those that Prometheus has stopped to scrape"
            " within a day. Nothing is known of their MicroVMs: see to the host or its exporter"
            " first. They are named below.",
            _NO_RULES,
        ),
        now(f"sum({_TARGETS}) - sum({_UP}) + (count({_GONE}) or 0 * sum({_TARGETS}))"),
        steps=_NONE_BROKEN,
    )


def _blind() -> Panel:
    failed = f"min by ({_HOST}) ({_SUCCESS}) == 0"
    return tile(
        Text(
            "Hosts partly blind",
            "Hosts whose exporter answers, but some collector of which could not look. What it"
            " would have found is missing from all that is shown here.",
            "unknown: no exporter answers",
        ),
        now(f"count({failed}) or 0 * count({_SUCCESS})"),
        steps=_NONE_WRONG,
    )


def _drifted() -> Panel:
    return tile(
        Text(
            "Drifted hosts",
            "Hosts with at least one finding of any severity." + _BLIND_SPOTS,
            _NO_RULES,
        ),
        now(fleet_count(f"count({_BY_HOST} > 0)", FLEET)),
        steps=_NONE_WRONG,
        mappings=_NONE_SEEN,
    )


def _critical() -> Panel:
    critical = series(_BY_SEVERITY, FLEET, severity="critical")
    return tile(
        Text(
            "Critical findings",
            "Findings that keep a wanted MicroVM from working: go to the first host of the table"
            " below." + _BLIND_SPOTS,
            _NO_RULES,
        ),
        now(fleet_count(f"sum({critical})", FLEET)),
        steps=_NONE_BROKEN,
        mappings=_NONE_SEEN,
    )


def _vms() -> Panel:
    drifted = series("job:microvm_drifted_vms:sum", FLEET)
    return tile(
        Text(
            "Drifted VMs",
            "MicroVMs with at least one finding, on the hosts that have looked at everything."
            + _BLIND_SPOTS,
            _NO_RULES,
        ),
        now(fleet_count(f"sum({drifted}) > 0", FLEET)),
        steps=_NONE_WRONG,
        mappings=_NONE_SEEN,
    )


def _kept() -> Panel:
    return tile(
        Text(
            "Autostart kept",
            "Share of the MicroVMs that start by themselves and run now: the mean over all hosts."
            " Below 90 % is an outage of some of them.",
            _NO_RULES,
        ),
        now(f"avg({_RATIO})"),
        "percentunit",
        steps={0: colours.CRITICAL, 0.9: colours.WARNING, 1: colours.GOOD},
        decimals=1,
    )


def _hosts() -> Panel:
    of = {name: series(_BY_SEVERITY, FLEET, severity=name) for name in colours.SEVERITIES}
    score = f"1e6 * {of['critical']} or 1e3 * {of['warning']} or 1 * {of['info']}"
    worst = f"topk(10, sum by ({_HOST}) ({score}))"
    wanted = (
        *(f"sum by ({_HOST}) ({found}) or on ({_HOST}) 0 * {worst}" for found in of.values()),
        f"{_BY_HOST} - {_BY_HOST} offset $__range",
        f"sum by ({_HOST}) ({_RATIO})",
    )
    return panel_table(
        Text(
            "Hosts to look at first",
            "The ten worst hosts, by critical findings, then warnings, then the rest. *Change* is"
            " the number of findings against the start of the time range: below zero it gets"
            " better. A host leads to its own dashboard, with what to do.",
            _NO_FINDING,
        ),
        [as_table(f"({one}) and on ({_HOST}) {worst}") for one in wanted],
        [
            Column("instance", "Host", links=[links.to_host("__data.fields.instance")]),
            Column("cluster", "Cluster", width=130),
            Column("Value #A", "Critical", width=100, steps=_shade(colours.CRITICAL), filled=True),
            Column("Value #B", "Warning", width=100, steps=_shade(colours.WARNING), filled=True),
            Column("Value #C", "Info", width=100, steps=_shade(colours.INFO), filled=True),
            Column("Value #D", "Change", width=100),
            Column("Value #E", "Autostart kept", width=140, unit="percentunit", decimals=0),
        ],
        sort=("Critical", "Warning", "Info"),
    )


def _shade(colour: str) -> Steps:
    return {0: "transparent", 1: colour}


def _worst() -> Panel:
    ever = f"max_over_time({_BY_HOST}[$__range] @ end()) > 0"
    return timeline(
        Text(
            "Findings by host",
            "Findings over time on the ten hosts that had the most in the time range. Where nothing"
            " is drawn the host was not heard of.",
            "No finding in this time on the hosts that were heard of",
        ),
        [over_time(f"{_BY_HOST} and on ({_HOST}) topk(10, {ever})", "{{instance}}")],
        mappings=FINDING_COUNTS,
        links=[links.to_host("__field.labels.instance")],
    )


def _silent() -> Panel:
    failed = f"{_SUCCESS} == 0"
    rows = (
        _because("no answer", f"{_ANSWERING} == 0"),
        _because("no target", _GONE),
        f'label_replace({failed}, "why", "$1 failed", "collector", "(.*)")',
    )
    return panel_table(
        Text(
            "Hosts not seen whole",
            "Hosts that do not answer, that are no target any more since a day or less, or a"
            " collector of which failed: they may have drift that nobody sees. A host leads to its"
            " exporter.",
            "All targets answer, and all their collectors look",
        ),
        [as_table(f"topk(20, sum by ({_HOST}, why) ({' or '.join(rows)}))")],
        [
            Column("instance", "Host", links=[links.to_exporter("__data.fields.instance")]),
            Column("why", "Why", width=140),
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
            over_time(f"sum({series(_BY_SEVERITY, FLEET, severity=name)})", name)
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
            "How many hosts show findings, how many none in what was looked at, and how many do"
            " not answer.",
            "No recorded series: are the recording rules loaded?",
        ),
        [
            over_time(f"sum({_TARGETS}) - sum({_UP})", "no answer"),
            over_time(f"count({_BY_HOST} > 0) or 0 * count({_BY_HOST})", "with findings"),
            over_time(f"count({_BY_HOST} == 0) or 0 * count({_BY_HOST})", "none found"),
        ],
        stacked=True,
        decimals=0,
    )
    return colour_by_name(
        panel,
        {
            "no answer": colours.UNKNOWN,
            "with findings": colours.WARNING,
            "none found": colours.GOOD,
        },
    )


def _kinds() -> Panel:
    metric = "job_kind:microvm_drift_findings:sum"
    current = f"sum by (kind) ({_BY_KIND}) > 0"
    return panel_table(
        Text(
            "Kinds of drift",
            "Findings by kind now, and what to do about one. `microvm-exporter check` on the host"
            " prints the exact commands.",
            _NO_FINDING,
        ),
        [
            as_table(current),
            as_table(f"max by (kind) ({remedies(metric, FLEET)}) and on (kind) ({current})"),
        ],
        [
            Column("kind", "Kind", width=170),
            Column("Value #A", "Now", width=80),
            Column("Value #B", "What to do", mappings=REMEDY_TEXTS, wrapped=True, left=True),
        ],
        sort=("Now",),
    )


def _kinds_over_time() -> Panel:
    ever = f"sum by (kind) (max_over_time({_BY_KIND}[$__range] @ end())) > 0"
    panel = graph(
        Text(
            "Findings by kind",
            "Kinds that occurred in the time range, in shades of their severity: vermilion for"
            " critical, orange for warning, blue for the rest.",
            "No finding in this time, or no recorded series: see the tiles above",
        ),
        [over_time(f"sum by (kind) ({_BY_KIND}) and on (kind) ({ever})", "{{kind}}")],
        decimals=0,
    )
    return colour_by_name(panel, colours.KINDS)


def _alerts() -> Panel:
    chosen = ('alertname=~"Microvm.+"', 'alertstate="firing"', 'severity!="none"')
    firing = series("ALERTS", FLEET, *chosen)
    return panel_table(
        Text(
            "Alerts firing",
            "Alerts of this project by name, with how many fire. Each has a runbook.",
            "No alert fires, if the alerting rules are loaded",
        ),
        [as_table(f"topk(20, count by (alertname, severity) ({firing}))")],
        [
            Column("alertname", "Alert"),
            Column("severity", "Severity", width=80, mappings=SEVERITY_NAMES, filled=True),
            Column("Value", "Firing", width=65),
        ],
        sort=("Firing",),
    )


def _machines() -> Panel:
    running = series("job:microvm_vm_running:sum", FLEET)
    drifted = series("job:microvm_drifted_vms:sum", FLEET)
    panel = graph(
        Text(
            "MicroVMs",
            "Declared, running and drifted MicroVMs of the fleet. A host that does not answer takes"
            " its MicroVMs out of all three.",
            "No recorded series: are the recording rules loaded?",
        ),
        [
            over_time(f"sum({_DECLARED})", "declared"),
            over_time(f"sum({running})", "running"),
            over_time(f"sum({drifted})", "drifted"),
        ],
        decimals=0,
    )
    names = {"declared": colours.INFO, "running": colours.GOOD, "drifted": colours.WARNING}
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
            Column("version", "Exporter", width=95),
            Column("python_version", "Python", width=80),
            Column("Value", "Hosts", width=75),
        ],
        sort=("Hosts",),
    )
