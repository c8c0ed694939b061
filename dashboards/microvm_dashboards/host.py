"""Host: every MicroVM's state over time, what to fix first and how, strays and leftovers."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links, marks, variables
from microvm_dashboards.document import Page
from microvm_dashboards.expressions import host_count, sight, vm_states
from microvm_dashboards.findings import findings_table
from microvm_dashboards.layout import Line, Section
from microvm_dashboards.mappings import SIGHT, VM_STATES
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
from microvm_dashboards.remedies import FAULTS, LEFTOVERS, STRAYS
from microvm_dashboards.selectors import HOST, any_of, series

__all__ = ["page"]

_UNKNOWN: Final = "unknown: some collector could not look, or the exporter does not answer"
_NONE_BROKEN: Final[Steps] = {0: colours.GOOD, 1: colours.CRITICAL}
_NONE_WRONG: Final[Steps] = {0: colours.GOOD, 1: colours.WARNING}
_NONE_LEFT: Final[Steps] = {0: colours.GOOD, 1: colours.INFO}


def page() -> Page:
    """The dashboard."""
    return Page(
        uid="microvm-host",
        description="What to fix first on one host: the state of every MicroVM over time, findings"
        " with what to do about them, stray devices and leftovers.",
        time="6h",
        variables=variables.of_host(),
        annotations=[marks.alerts(HOST), marks.declaration_of_host(HOST), marks.restarts(HOST)],
        sections=[
            Section("Is all well?", [Line(4, _tiles())]),
            Section(
                "What to fix first",
                [Line(9, [(24, _faults())]), Line(11, [(24, _states())])],
            ),
            Section(
                "Strays and leftovers",
                [Line(8, [(12, _strays()), (12, _leftovers())])],
            ),
            Section(
                "Better or worse?",
                [Line(8, [(8, _by_severity()), (8, _restarts()), (8, _units())])],
            ),
        ],
    )


def _tiles() -> list[tuple[int, Panel]]:
    tiles = (_exporter(), _vms_down(), _findings(), _strayed(), _conditions(), _declared())
    return [(4, one) for one in tiles]


def _exporter() -> Panel:
    return tile(
        Text(
            "Exporter",
            "Whether the exporter answers and all its collectors can look. *Partly blind*: what is"
            " shown here may lack findings. It leads to the exporter's dashboard.",
            "no target: Prometheus does not scrape this host",
        ),
        now(sight(HOST)),
        mappings=SIGHT,
        links=[links.to_exporter()],
    )


def _vms_down() -> Panel:
    running = series("microvm_vm_running", HOST)
    wanted = series("microvm_vm_info", HOST, autostart="true")
    down = f"count(max by (vm) ({running}) == 0 and on (vm) {wanted})"
    return tile(
        Text(
            "VMs down",
            "MicroVMs that should start by themselves and do not run.",
            _UNKNOWN,
        ),
        now(host_count(down, HOST)),
        steps=_NONE_BROKEN,
    )


def _findings() -> Panel:
    found = series("microvm_drift_finding", HOST, 'severity=~"critical|warning"')
    return tile(
        Text(
            "To fix",
            "Findings that are critical or a warning. Green only when every collector has looked.",
            _UNKNOWN,
        ),
        now(host_count(f"count({found})", HOST)),
        steps=_NONE_BROKEN,
    )


def _strayed() -> Panel:
    found = series("microvm_drift_findings", HOST, any_of(STRAYS))
    return tile(
        Text(
            "Strays",
            "TAPs, macvtaps and helpers that are there without their MicroVM.",
            _UNKNOWN,
        ),
        now(host_count(f"sum({found}) > 0", HOST)),
        steps=_NONE_WRONG,
    )


def _conditions() -> Panel:
    return tile(
        Text(
            "Skipped starts",
            "Units whose last start systemd skipped because of a condition that should have held."
            " What every healthy host shows is not counted.",
            _UNKNOWN,
        ),
        now(host_count(f"sum({series('microvm_failed_condition_checks', HOST)}) > 0", HOST)),
        steps=_NONE_WRONG,
    )


def _declared() -> Panel:
    return tile(
        Text(
            "Declared VMs",
            "MicroVMs that the host's configuration declares.",
            "unknown: the declaration could not be read",
        ),
        now(f"sum({series('microvm_declared_vms', HOST)})"),
    )


def _faults() -> Panel:
    return findings_table(
        Text(
            "What to fix first",
            "What keeps MicroVMs from being as declared, worst first; then causes come before their"
            " symptoms. *Seen since* goes back to the start of the time range at most. For the"
            " exact commands run `microvm-exporter check` on the host. A MicroVM leads to its own"
            " dashboard.",
            "unknown: Prometheus has nothing of this host",
        ),
        HOST,
        FAULTS,
    )


def _strays() -> Panel:
    return findings_table(
        Text(
            "Strays",
            "Devices and helpers that are there without their MicroVM. They hold names, addresses"
            " and memory, and a start of the MicroVM may fail on them.",
            "unknown: Prometheus has nothing of this host",
        ),
        HOST,
        STRAYS,
    )


def _leftovers() -> Panel:
    return findings_table(
        Text(
            "Leftovers",
            "What removed MicroVMs left behind and does no harm today: disk space, unit files,"
            " names in listings. Clean up when there is time.",
            "unknown: Prometheus has nothing of this host",
        ),
        HOST,
        LEFTOVERS,
    )


def _states() -> Panel:
    return timeline(
        Text(
            "MicroVMs over time",
            "The state of each MicroVM. *Down*: it should run and does not. *Stopped*: it does not"
            " run, and need not. *Findings*: it has drift, see above. The first row is the"
            " exporter itself; where nothing is drawn, nothing is known. A row leads to its"
            " MicroVM.",
            "unknown: Prometheus has nothing of this host",
        ),
        [over_time(sight(HOST), "exporter"), over_time(vm_states(HOST), "{{vm}}")],
        mappings=VM_STATES,
        links=[links.to_vm("__field.labels.vm")],
    )


def _by_severity() -> Panel:
    of = {
        name: f"count({series('microvm_drift_finding', HOST, severity=name)})"
        for name in ("critical", "warning", "info")
    }
    panel = graph(
        Text(
            "Findings by severity",
            "Findings over time. A line ends where a collector could not look and nothing was"
            " found.",
            _UNKNOWN,
        ),
        [over_time(host_count(count, HOST), name) for name, count in of.items()],
        decimals=0,
    )
    return colour_by_name(
        panel, {"critical": colours.CRITICAL, "warning": colours.WARNING, "info": colours.INFO}
    )


def _restarts() -> Panel:
    restarts = series("microvm_vm_restarts_total", HOST)
    ever = f"max by (vm) (increase({restarts}[$__range] @ end())) > 0"
    return graph(
        Text(
            "Automatic restarts",
            "Restarts by systemd, MicroVMs that had any in the time range. A crash loop never"
            " becomes *failed*: it shows here.",
            "No automatic restart in this time, as far as was looked",
        ),
        [
            over_time(
                f"max by (vm) (increase({restarts}[$__rate_interval])) and on (vm) ({ever})",
                "{{vm}}",
            )
        ],
        bars=True,
        stacked=True,
        links=[links.to_vm("__field.labels.vm")],
        decimals=0,
    )


def _units() -> Panel:
    return panel_table(
        Text(
            "Units",
            "Loaded units of the MicroVM family by template and state, as in `systemctl list-units"
            " 'microvm*'`. Helpers of devices that a MicroVM does not have are inactive.",
            "unknown: systemd could not be asked",
        ),
        [as_table(f"sum by (template, state) ({series('microvm_present_units', HOST)})")],
        [
            Column("template", "Template"),
            Column("state", "State", width=110),
            Column("Value", "Units", width=70),
        ],
        sort=("Units",),
    )
