"""MicroVMs, hosts and the fleet: what many findings, or none, come to."""

from __future__ import annotations

from typing import Final

from microvm_alerts.drift import LAST_SEEN
from microvm_alerts.recording import running_ratio
from microvm_alerts.rules import Alert, Group, Record
from microvm_alerts.settings import Settings
from microvm_alerts.wording import INSTANCE, VM, links

__all__ = ["vms_group"]

STEADY_RATIO: Final = "instance:microvm_vm_running:steady_ratio"
"""The share of a host's wanted MicroVMs that were up at each scrape of late."""


def vms_group(settings: Settings) -> Group:
    """Give the alerts, and what they look back on, or what costs as much to find."""
    rules = (
        _restarts,
        _steady_ratio,
        _restart_loop,
        _host_mostly_down,
        _fleet_degraded,
        _declared_vms_dropped,
    )
    return Group(
        "microvm-vms",
        tuple(rule(settings) for rule in rules),
        settings.span(settings.alerts_interval),
    )


def _restarts(s: Settings) -> Record:
    restarts = f"microvm_vm_restarts_total{{{s.selector}}}"
    return Record(
        "job:microvm_vm_restarts:increase5m", f"sum by ({s.job}) (increase({restarts}[5m]))"
    )


def _steady_ratio(s: Settings) -> Record:
    """In a crash loop a MicroVM is up now and then, and of many of them always some are."""
    steady = f"min_over_time(microvm_vm_running{{{s.selector}}}[{s.span(s.linger)}])"
    return Record(STEADY_RATIO, running_ratio(s, steady))


def _restart_loop(s: Settings) -> Alert:
    """A crash loop.

    With ``RestartSec=5s`` ``microvm@`` never becomes failed, and its NRestarts rises. A stop sets
    that to 0, which `increase` takes for what it is. Findings of not_running come and go with it.
    """
    name, window, pause = (
        "MicrovmRestartLoop",
        s.span(s.restart_loop_window),
        s.span(s.restart_loop_pause),
    )
    restarts = f"microvm_vm_restarts_total{{{s.selector}}}"
    by = f"{s.host}, vm"
    return Alert(
        name,
        # Compared before they are aggregated, which would sort tens of thousands of zeros.
        f"max by ({by}) (increase({restarts}[{window}]) >= {s.restart_loop_restarts})\n"
        f"and on ({by})\n"
        f"increase({restarts}[{pause}]) > 0",
        "warning",
        {
            "summary": f"MicroVM {VM} restarts again and again on {INSTANCE}",
            "description": f'systemd on {INSTANCE} restarted {VM} {{{{ $value | printf "%.0f" }}}}'
            f" times within {window}, and still does. It never counts as failed: systemd tries for"
            " ever.",
            **links(s, name, "microvm-vm", "job", "instance", "vm"),
        },
        hold=s.span(s.for_critical),
        keep_firing_for=s.span(s.keep_firing_for),
    )


def _host_mostly_down(s: Settings) -> Alert:
    """One cause on the host, in place of a page a MicroVM.

    Both sides hold while a collector fails: the ratio as it was last known, and the findings. Both
    look back for ``linger``, as the alerts do that this one hides.
    """
    name = "MicrovmHostMostlyDown"
    ratio = f"{STEADY_RATIO}{{{s.recorded}}}[{s.span(s.remember)}]"
    seen = f'{LAST_SEEN}{{{s.recorded}, kind="not_running"}}[{s.span(s.linger)}]'
    return Alert(
        name,
        f"max by ({s.host}) (last_over_time({ratio})) < {s.host_down_ratio:g}\n"
        f"and on ({s.host})\n"
        f"count by ({s.host}) (last_over_time({seen})) >= {s.host_down_vms}",
        "critical",
        {
            "summary": f"Most MicroVMs of {INSTANCE} are down",
            "description": "Only {{ $value | humanizePercentage }} of the declared MicroVMs that"
            f" start automatically are up on {INSTANCE} and stay up: look for one cause on the"
            " host.",
            **links(s, name, "microvm-host", "job", "instance"),
        },
        hold=s.span(s.for_critical),
        keep_firing_for=s.span(s.keep_firing_for),
    )


def _fleet_degraded(s: Settings) -> Alert:
    name = "MicrovmFleetDegraded"
    degraded = f"max by ({s.job}) (job:microvm_degraded_hosts:count{{{s.recorded}}})"
    return Alert(
        name,
        f"{degraded}\n"
        f"  / on ({s.job})\n"
        f"max by ({s.job}) (job:up:count{{{s.recorded}}})\n"
        f"  >= {s.fleet_degraded_ratio:g}\n"
        f"and on ({s.job})\n"
        f"{degraded} >= {s.fleet_degraded_hosts}",
        "critical",
        {
            "summary": "Many hosts of {{ $labels.job }} are in trouble at once",
            "description": "{{ $value | humanizePercentage }} of the hosts of {{ $labels.job }}"
            " have a critical finding, or cannot be scraped: look for what they have in common.",
            **links(s, name, "microvm-fleet", "job"),
        },
        hold=s.span(s.for_critical),
        keep_firing_for=s.span(s.keep_firing_for),
    )


def _declared_vms_dropped(s: Settings) -> Alert:
    """An empty or half a declaration makes all else look clean.

    It compares what was read: while the declaration cannot be read, the last number holds.
    """
    name = "MicrovmDeclaredVmsDropped"
    declared = f"instance:microvm_declared_vms:sum{{{s.recorded}}}"
    return Alert(
        name,
        f"max by ({s.host}) (last_over_time({declared}[{s.span(s.remember)}]))\n"
        f"  <= on ({s.host})\n"
        f"{s.declared_dropped_ratio:g} * (\n"
        f"  max by ({s.host}) (max_over_time({declared}[{s.span(s.history)}]))\n"
        f"  >= {s.declared_dropped_vms}\n"
        ")\n"
        f"and on ({s.host})\n"
        f"up{{{s.selector}}}",
        "warning",
        {
            "summary": f"{INSTANCE} declares far fewer MicroVMs than it did",
            "description": f"{INSTANCE} declares {{{{ $value }}}} MicroVMs, at most"
            f" {s.declared_dropped_ratio * 100:g} % of the most within {s.span(s.history)}. If that"
            " was not intended, the declaration lost them.",
            **links(s, name, "microvm-host", "job", "instance"),
        },
        hold=s.span(s.for_warning),
    )
