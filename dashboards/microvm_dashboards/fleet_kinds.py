"""What kind of drift the fleet has: panels of its dashboard."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours
from microvm_dashboards.expressions import by_rank, remedies
from microvm_dashboards.fleet_series import BY_KIND
from microvm_dashboards.mappings import REMEDY_TEXTS, SEVERITIES
from microvm_dashboards.panels import Column, Panel, Text, colour_by_name, graph, panel_table
from microvm_dashboards.queries import as_table, over_time
from microvm_dashboards.selectors import FLEET, alerts, series

__all__ = ["NO_FINDING", "firing_alerts", "kinds", "kinds_over_time"]

_FOUND: Final = series(BY_KIND, FLEET)
NO_FINDING: Final = "No finding on the hosts that were looked at"


def kinds() -> Panel:
    current = f"sum by (kind) ({_FOUND}) > 0"
    return panel_table(
        Text(
            "Kinds of drift",
            "Findings by kind now, and what to do about one. `microvm-exporter check` on the host"
            " prints the exact commands.",
            NO_FINDING,
        ),
        [
            as_table(current),
            as_table(f"max by (kind) ({remedies(BY_KIND, FLEET)}) and on (kind) ({current})"),
        ],
        [
            Column("kind", "Kind", width=170),
            Column("Value #A", "Now", width=80),
            Column("Value #B", "What to do", mappings=REMEDY_TEXTS, wrapped=True, left=True),
        ],
        sort=("Now",),
        paged=True,
    )


def kinds_over_time() -> Panel:
    ever = f"sum by (kind) (max_over_time({_FOUND}[$__range] @ end())) > 0"
    panel = graph(
        Text(
            "Findings by kind",
            "Kinds that occurred in the time range, in shades of their severity: vermilion for"
            " critical, orange for warning, blue for the rest.",
            "No finding in this time, or no recorded series: see the tiles above",
        ),
        [over_time(f"sum by (kind) ({_FOUND}) and on (kind) ({ever})", "{{kind}}")],
        decimals=0,
    )
    return colour_by_name(panel, colours.KINDS)


def firing_alerts() -> Panel:
    ranked = by_rank(lambda severity: alerts(FLEET, "firing", severity=severity))
    return panel_table(
        Text(
            "Alerts firing",
            "Alerts of this project by name, the most severe first, with how many fire. Each has a"
            " runbook.",
            "No alert fires, if the alerting rules are loaded",
        ),
        [
            as_table(f"max by (alertname) ({ranked})"),
            as_table(f"count by (alertname) ({alerts(FLEET, 'firing')})"),
        ],
        [
            Column("alertname", "Alert"),
            Column("Value #A", "Severity", width=80, mappings=SEVERITIES, filled=True),
            Column("Value #B", "Firing", width=65),
        ],
        sort=("Severity", "Firing"),
        paged=True,
    )
