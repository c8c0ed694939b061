"""What numbers and names mean in words: Grafana's value mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.models import dashboard

from microvm_dashboards import colours
from microvm_dashboards.remedies import BLIND, NUMBERS, REMEDIES

__all__ = [
    "ALERT_STATES",
    "ANSWERS",
    "COLLECTOR_STATES",
    "COUNTS",
    "FINDING_COUNTS",
    "KINDS",
    "LASTING",
    "REMEDY_TEXTS",
    "RESTARTS",
    "SEVERITIES",
    "SINCE",
    "UNKNOWN",
    "UPTIMES",
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


def _no_value(text: str, colour: str | None = None) -> dashboard.ValueMapping:
    result = dashboard.ValueMappingResult(text=text, color=colour, index=99)
    match = dashboard.SpecialValueMatch.NULL_AND_NAN
    return dashboard.SpecialValueMap(dashboard.DashboardSpecialValueMapOptions(match, result))


def _range(first: int, last: int | None, text: str | None, colour: str) -> dashboard.ValueMapping:
    result = dashboard.ValueMappingResult(text=text, color=colour, index=first)
    return dashboard.RangeMap(dashboard.DashboardRangeMapOptions(first, last, result))


UNKNOWN: Final = [_no_value("unknown", colours.UNKNOWN)]
"""No value at all: could not look. Never green."""

SEVERITIES: Final = words(
    {
        "0": ("none", colours.GOOD),
        "1": ("info", colours.INFO),
        "2": ("warning", colours.WARNING),
        "3": ("critical", colours.CRITICAL),
        "4": ("unknown", colours.UNKNOWN),
    }
)
"""Of the ranks that `expressions.ranked` gives."""

KINDS: Final = words({kind: (text, None) for kind, (text, _) in BLIND.items()})
"""Kinds are shown by their name; these are rows that are no findings."""

REMEDY_TEXTS: Final = words(
    {
        **{str(NUMBERS[kind]): (text, None) for kind, text in REMEDIES.items()},
        **{str(NUMBERS[kind]): (text, None) for kind, (_, text) in BLIND.items()},
    }
)
"""Of the numbers that `expressions.remedies` gives."""

SINCE: Final = [*words({"0": ("—", None)}), _no_value("earlier")]
"""Of the times that `expressions.findings_since` gives."""

UPTIMES: Final = words({"-1": ("not running", colours.OFF)})
"""Of seconds, where there may be none."""

RESTARTS: Final = words({"-1": ("not loaded", colours.OFF)})
"""Of the restarts of a VM that systemd may have forgotten."""

LASTING: Final = [
    *words({"0": ("gone", colours.GOOD), "1": ("lasts", colours.WARNING)}),
    *UNKNOWN,
]
"""Whether what was found is there still."""

COUNTS: Final = [
    *words({"0": ("none", colours.GOOD), "-1": ("unknown", colours.UNKNOWN)}),
    _range(1, None, None, colours.WARNING),
]
"""How many are not as they should be; -1 where it could not be looked."""

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
        "12": ("unknown", colours.UNKNOWN),
        "20": ("partly blind", colours.UNKNOWN),
        "21": ("sees all", colours.GOOD),
        "22": ("no answer", colours.UNKNOWN),
        "23": ("no target", colours.UNKNOWN),
    }
)
"""Of what `expressions.vm_states` gives, and `expressions.sight`, which is drawn beside it."""

COLLECTOR_STATES: Final = words(
    {
        "0": ("failed", colours.CRITICAL),
        "1": ("looks each interval", colours.WARNING),
        "2": ("follows changes", colours.GOOD),
        "3": ("no answer", colours.CRITICAL),
        "4": ("answers", colours.GOOD),
    }
)


FINDING_COUNTS: Final = [
    *words({"0": ("none", colours.GOOD)}),
    _range(1, 2, "1 or 2 findings", colours.INFO),
    _range(3, 9, "3 to 9", colours.WARNING),
    _range(10, None, "10 or more", colours.CRITICAL),
]

ANSWERS: Final = words({"0": ("no answer", colours.CRITICAL), "1": ("answers", colours.GOOD)})

ALERT_STATES: Final = words({"1": ("pending", colours.WARNING), "2": ("firing", colours.CRITICAL)})
