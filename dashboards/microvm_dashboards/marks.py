"""Marks over time: switches of the declaration, restarts, firing alerts.

Each is a line where something begins: points that follow each other Grafana takes for a region,
which would dye every graph.
"""

from __future__ import annotations

from collections.abc import Callable

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery

from microvm_dashboards import colours, selectors
from microvm_dashboards.queries import DATASOURCE
from microvm_dashboards.selectors import series

__all__ = [
    "alerts",
    "declaration_of_fleet",
    "declaration_of_host",
    "exporter_starts",
    "fleet_alerts",
    "restarts",
    "restarts_of_fleet",
]


def declaration_of_host(scope: str) -> AnnotationQuery:
    """A switch: the declaration was written anew, or declares another number of VMs.

    The first is an event that the exporter hears of where there is a declaration file; without one
    only the second can be told.
    """
    heard = series("microvm_exporter_events_total", scope, collector="declaration")
    declared = series("microvm_declared_vms", scope)
    return _annotation(
        "Declaration",
        _begins(
            lambda before: (
                f"sum by (instance) (increase({heard}[$__rate_interval]{before})) > 0"
                f" or sum by (instance) (changes({declared}[$__rate_interval]{before})) > 0"
            )
        ),
        colours.INFO,
        text="The declaration changed on {{instance}}",
    )


def declaration_of_fleet(scope: str) -> AnnotationQuery:
    """A switch of some host that changed how many VMs it declares.

    Each host's number for itself: that of all changes also where a host does not answer.
    """
    declared = series("instance:microvm_declared_vms:sum", scope)
    return _annotation(
        "Declaration",
        _begins(
            lambda before: (
                f"sum by (cluster, job) (changes({declared}[$__rate_interval]{before})) > 0"
            )
        ),
        colours.INFO,
        text="Another number of MicroVMs is declared {{cluster}}",
    )


def restarts(scope: str) -> AnnotationQuery:
    """systemd started a VM again, or a person did; of a crash loop the first restart alone."""
    counted = series("microvm_vm_restarts_total", scope)
    started = series("microvm_vm_start_time_seconds", scope)
    return _annotation(
        "Restarts",
        _begins(
            lambda before: (
                f"max by (vm) (increase({counted}[$__rate_interval]{before})) > 0"
                f" or max by (vm) (changes({started}[$__rate_interval]{before})) > 0"
            )
        ),
        colours.WARNING,
        text="{{vm}} restarted",
        tags="vm",
    )


def restarts_of_fleet(scope: str) -> AnnotationQuery:
    """systemd starts VMs again, somewhere; of a crash loop the first restart alone."""
    restarted = series("job:microvm_vm_restarts:increase5m", scope)
    return _annotation(
        "Restarts",
        _begins(lambda before: f"sum by (cluster, job) ({restarted}{before}) > 0"),
        colours.WARNING,
        text="MicroVMs restarted on some host {{cluster}}",
    )


def exporter_starts(scope: str) -> AnnotationQuery:
    """The exporter was started: what it counts begins anew. It may have been down for a day."""
    started = series("process_start_time_seconds", scope)
    return _annotation(
        "Exporter started",
        f"max by (instance) ({started})"
        f" > max by (instance) (last_over_time({started}[1d] offset $__interval))",
        colours.OFF,
        text="The exporter was started on {{instance}}",
    )


def alerts(scope: str, *matchers: str) -> AnnotationQuery:
    """Alerts of a host or VM, where they begin to fire."""
    firing = selectors.alerts(scope, "firing", *matchers)
    return _annotation(
        "Alerts",
        _begins(lambda before: f"max by (alertname, severity, vm) ({firing}{before})"),
        colours.CRITICAL,
        text="{{alertname}} {{vm}}",
        tags="severity",
    )


def fleet_alerts(scope: str) -> AnnotationQuery:
    """Names of critical alerts, where the first begins to fire: a few however many hosts."""
    firing = selectors.alerts(scope, "firing", severity="critical")
    return _annotation(
        "Alerts",
        _begins(lambda before: f"count by (alertname, severity) ({firing}{before})"),
        colours.CRITICAL,
        text="{{alertname}} on some host",
        tags="severity",
    )


def _begins(ask: Callable[[str], str]) -> str:
    """Where it is, and was not a step before, which ``ask`` asks with what it is given."""
    return f"({ask('')}) unless ({ask(' offset $__interval')})"


def _annotation(
    name: str, expression: str, colour: str, *, text: str, tags: str = ""
) -> AnnotationQuery:
    return (
        AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(expression)
        .step("60s")
        .title_format(name)
        .text_format(text)
        .tag_keys(tags)
    )
