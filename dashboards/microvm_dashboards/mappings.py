"""What numbers and names mean in words: Grafana's value mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.models import dashboard

from microvm_dashboards import colours
from microvm_dashboards.remedies import REMEDIES

__all__ = [
    "ALERT_STATES",
    "ANSWERS",
    "COLLECTOR_STATES",
    "KINDS",
    "REMEDY_TEXTS",
    "SEVERITIES",
    "SIGHT",
    "UNKNOWN",
    "VM_STATES",
    "words",
]


def words(meanings: Mapping[str, tuple[str, str | None]]) -> list[dashboard.ValueMapping]:
    """Map each value to a text and a colour."""
    options = {
        value: dashboard.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(meanings.items())
    }
    return [dashboard.ValueMap(options)]


UNKNOWN: Final[list[dashboard.ValueMapping]] = [
    dashboard.SpecialValueMap(
        dashboard.DashboardSpecialValueMapOptions(
            dashboard.SpecialValueMatch.NULL_AND_NAN,
            dashboard.ValueMappingResult(text="unknown", color=colours.UNKNOWN, index=99),
        )
    )
]
"""No value at all: could not look. Never green."""

SEVERITIES: Final = words(
    {
        "0": ("fine", colours.GOOD),
        "1": ("info", colours.INFO),
        "2": ("warning", colours.WARNING),
        "3": ("critical", colours.CRITICAL),
        "4": ("unknown", colours.UNKNOWN),
    }
)
"""Of the ranks that `expressions.rank` gives."""

_BLIND: Final = {
    "nothing_found": ("nothing found", "All collectors have looked, and there is nothing to do."),
    "could_not_look": (
        "could not look",
        "What this collector looks at is unknown, not fine: see the exporter's dashboard.",
    ),
    "no_answer": ("no answer", "The exporter does not answer: is the host up, and its unit?"),
    "no_target": ("no target", "Prometheus does not scrape this host any more."),
}

KINDS: Final = words({kind: (text, None) for kind, (text, _) in _BLIND.items()})
"""Kinds are shown by their name; these are rows that are no findings."""

REMEDY_TEXTS: Final = words(
    {
        **{kind.value: (text, None) for kind, text in REMEDIES.items()},
        **{kind: (text, None) for kind, (_, text) in _BLIND.items()},
    }
)

VM_STATES: Final = words(
    {
        "0": ("stopped", colours.OFF),
        "1": ("running", colours.GOOD),
        "2": ("stopped, findings", colours.INFO),
        "3": ("running, findings", colours.WARNING),
        "4": ("down", colours.CRITICAL),
        "5": ("running", colours.GOOD),
        "6": ("down", colours.CRITICAL),
        "7": ("running, findings", colours.WARNING),
        "8": ("not running", colours.UNKNOWN),
        "9": ("running", colours.GOOD),
        "10": ("not running", colours.UNKNOWN),
        "11": ("running, findings", colours.WARNING),
        "20": ("partly blind", colours.UNKNOWN),
        "21": ("sees all", colours.GOOD),
        "22": ("no answer", colours.UNKNOWN),
    }
)
"""Of the numbers that `expressions.vm_states` and `expressions.sight` give."""

SIGHT: Final = VM_STATES

COLLECTOR_STATES: Final = words(
    {
        "0": ("failed", colours.CRITICAL),
        "1": ("looks each interval", colours.WARNING),
        "2": ("follows changes", colours.GOOD),
        "3": ("no answer", colours.CRITICAL),
        "4": ("answers", colours.GOOD),
    }
)

ANSWERS: Final = words({"0": ("no answer", colours.CRITICAL), "1": ("answers", colours.GOOD)})

ALERT_STATES: Final = words({"1": ("pending", colours.WARNING), "2": ("firing", colours.CRITICAL)})
