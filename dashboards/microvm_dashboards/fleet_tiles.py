"""Whether all is well: the tiles of the fleet's dashboard."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours
from microvm_dashboards.expressions import fleet_count, left_out
from microvm_dashboards.fleet_series import (
    BY_HOST,
    BY_SEVERITY,
    DRIFTED,
    GONE,
    HOST,
    RATIO,
    SUCCESS,
    TARGETS,
    UP,
)
from microvm_dashboards.layout import Line
from microvm_dashboards.mappings import words
from microvm_dashboards.no_data import NO_RULES
from microvm_dashboards.panels import Panel, Text, tile
from microvm_dashboards.queries import now
from microvm_dashboards.selectors import FLEET, series
from microvm_dashboards.steps import NONE_BROKEN, NONE_WRONG

__all__ = ["tiles"]

_NONE_SEEN: Final = words({"-1": ("none seen", colours.UNKNOWN)})
_BLIND_SPOTS: Final = (
    " *none seen*: nothing was found, but some host does not answer or could not look at"
    " everything, so that there may be more."
)


def tiles() -> list[Line]:
    """Two lines: as one, their titles were cut on a narrow screen."""
    return [
        Line(3, [(8, _down()), (8, _blind()), (8, _kept())]),
        Line(3, [(8, _critical()), (8, _drifted()), (8, _vms())]),
    ]


def _down() -> Panel:
    return tile(
        Text(
            "Hosts not answering",
            "Hosts whose exporter does not answer, and those that Prometheus has ceased to scrape"
            " within a day. Nothing is known of their MicroVMs: see to the host or its exporter"
            " first. They are named below.",
            NO_RULES,
        ),
        now(f"sum({TARGETS}) - sum({UP}) + (count({GONE}) or 0 * sum({TARGETS}))"),
        steps=NONE_BROKEN,
    )


def _blind() -> Panel:
    failed = f"min by ({HOST}) ({SUCCESS}) == 0 or count by ({HOST}) ({left_out(FLEET)})"
    return tile(
        Text(
            "Hosts partly blind",
            "Hosts whose exporter answers, but some collector of which could not look, or left"
            " something out. What it would have found is missing from all that is shown here.",
            "unknown: no exporter answers",
        ),
        now(f"count({failed}) or 0 * count({SUCCESS})"),
        steps=NONE_WRONG,
    )


def _drifted() -> Panel:
    return tile(
        Text(
            "Drifted hosts",
            "Hosts with at least one finding of any severity." + _BLIND_SPOTS,
            NO_RULES,
        ),
        now(fleet_count(f"count({BY_HOST} > 0)", FLEET)),
        steps=NONE_WRONG,
        mappings=_NONE_SEEN,
    )


def _critical() -> Panel:
    critical = series(BY_SEVERITY, FLEET, severity="critical")
    return tile(
        Text(
            "Critical findings",
            "Findings that keep a wanted MicroVM from working: go to the first host of the table"
            " below." + _BLIND_SPOTS,
            NO_RULES,
        ),
        now(fleet_count(f"sum({critical})", FLEET)),
        steps=NONE_BROKEN,
        mappings=_NONE_SEEN,
    )


def _vms() -> Panel:
    return tile(
        Text(
            "Drifted VMs",
            "MicroVMs with at least one finding, on the hosts that have looked at everything."
            + _BLIND_SPOTS,
            NO_RULES,
        ),
        now(fleet_count(f"sum({DRIFTED}) > 0", FLEET)),
        steps=NONE_WRONG,
        mappings=_NONE_SEEN,
    )


def _kept() -> Panel:
    return tile(
        Text(
            "Autostart kept",
            "Share of the MicroVMs that start by themselves and run now: the mean over all hosts."
            " Below 90 % is an outage of some of them.",
            NO_RULES,
        ),
        now(f"avg({RATIO})"),
        "percentunit",
        steps={0: colours.CRITICAL, 0.9: colours.WARNING, 1: colours.GOOD},
        decimals=1,
    )
