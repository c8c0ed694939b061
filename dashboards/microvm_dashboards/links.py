"""Links between the dashboards: all keep the time, the data source and what was chosen."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

__all__ = ["DASHBOARDS", "others", "to_exporter", "to_host", "to_vm"]

DASHBOARDS: Final = {
    "microvm-fleet": ("Fleet", "Which hosts drift, and what kind of drift it is"),
    "microvm-host": ("Host", "What to fix first on this host"),
    "microvm-vm": ("VM", "The life of one MicroVM"),
    "microvm-exporter": ("Exporter", "Whether what is shown can be trusted"),
}
"""Uid: title and what it answers."""

_CHOSEN: Final = "${datasource:queryparam}&${cluster:queryparam}&${job:queryparam}"
_TIME: Final = "${__url_time_range}"


def others(uid: str) -> list[DashboardLink]:
    """Link the other dashboards, above the panels."""
    return [_to_dashboard(other) for other in DASHBOARDS if other != uid]


def _to_dashboard(uid: str) -> DashboardLink:
    title, tooltip = DASHBOARDS[uid]
    return (
        DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .icon("dashboard")
        .tooltip(tooltip)
        .url(f"/d/{uid}")
        .include_vars(True)
        .keep_time(True)
    )


def to_host(instance: str | None = None) -> DashboardLink:
    """Link the host that a cell or series tells of by this variable; unless given, the chosen."""
    return _data_link("Open the host", "microvm-host", _value("instance", instance))


def to_exporter(instance: str | None = None) -> DashboardLink:
    """Link the exporter of a host in the same way."""
    return _data_link("Open its exporter", "microvm-exporter", _value("instance", instance))


def to_vm(vm: str) -> DashboardLink:
    """Link the VM that a cell or series tells of, on the chosen host."""
    chosen = f"{_value('instance', None)}&{_value('vm', vm)}"
    return _data_link("Open the MicroVM", "microvm-vm", chosen)


def _data_link(title: str, uid: str, query: str) -> DashboardLink:
    return DashboardLink(title).url(f"/d/{uid}?{_CHOSEN}&{query}&{_TIME}")


def _value(name: str, variable: str | None) -> str:
    """The variable itself, or a value from the data, encoded: a guest may have chosen it."""
    if variable is None:
        return f"${{{name}:queryparam}}"
    return f"var-{name}=${{{variable}:percentencode}}"
