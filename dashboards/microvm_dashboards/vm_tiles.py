"""The tiles of the VM dashboard: how it is, and whether that can be trusted."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links
from microvm_dashboards.expressions import (
    host_count,
    ranked,
    seen_whole,
    sight,
    uptime,
    vm_states,
)
from microvm_dashboards.mappings import RESTARTS, SEVERITIES, SIGHT, UPTIMES, VM_STATES
from microvm_dashboards.panels import Panel, Text, tile
from microvm_dashboards.queries import now
from microvm_dashboards.selectors import HOST, VM, series

__all__ = ["exporter_tile", "tiles"]

_RUNNING: Final = series("microvm_vm_running", VM)


def tiles() -> list[tuple[int, Panel]]:
    """What it does now."""
    return [(6, one) for one in (_now(), _runs_for(), _restarted(), _found())]


def exporter_tile() -> Panel:
    """Whether its host is seen."""
    return tile(
        Text(
            "Exporter",
            "Whether the exporter of its host answers and all its collectors can look. *Partly"
            " blind*: what is shown here may lack findings.",
            "unknown: Prometheus has nothing of this host in this time",
        ),
        now(sight(HOST)),
        mappings=SIGHT,
        links=[links.to_exporter()],
    )


def _now() -> Panel:
    return tile(
        Text(
            "State",
            "Whether it runs. *Down*: it should run by itself and does not. *Stopped*: it need not"
            " run. *Findings*: it has drift, see below. *Unknown*: systemd could not be asked, or"
            " there is no such MicroVM any more.",
            "unknown: no such MicroVM, or systemd could not be asked",
        ),
        now(vm_states(VM)),
        mappings=VM_STATES,
    )


def _runs_for() -> Panel:
    return tile(
        Text(
            "Runs for",
            "Time since it was started last, by systemd or by a person.",
            "unknown: no such MicroVM, or systemd could not be asked",
        ),
        now(f"{uptime(VM)} or on (vm) max by (vm) ({_RUNNING}) - 1"),
        "s",
        steps={0: colours.GOOD},
        mappings=UPTIMES,
        decimals=1,
    )


def _restarted() -> Panel:
    restarts = series("microvm_vm_restarts_total", VM)
    return tile(
        Text(
            "Restarts in range",
            "Automatic restarts in the time range. A few are a hiccup; more than that is a crash"
            " loop, which systemd never calls failed: read the journal of its microvm@ unit.",
            "unknown: systemd could not be asked, or the exporter does not answer",
        ),
        now(
            f"(round(sum(increase({restarts}[$__range]))) or 0 * max({_RUNNING}) - 1)"
            f" and on () {seen_whole(HOST)}"
        ),
        mappings=RESTARTS,
        steps={0: colours.GOOD, 1: colours.WARNING, 5: colours.CRITICAL},
        decimals=0,
    )


def _found() -> Panel:
    return tile(
        Text(
            "Worst finding",
            "The severity of its worst finding now. *Fine* only when every collector has looked.",
            "unknown: a collector could not look, or the exporter does not answer",
        ),
        now(host_count(f"max({ranked(VM)})", HOST)),
        mappings=SEVERITIES,
    )
