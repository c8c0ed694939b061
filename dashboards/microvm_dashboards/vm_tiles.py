"""The tiles of the VM dashboard: how it is, and whether that can be trusted."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours
from microvm_dashboards.expressions import (
    host_count,
    ranked,
    systemd_asked,
    uptime,
    vm_states,
)
from microvm_dashboards.mappings import RESTARTS, SEVERITIES, UPTIMES, VM_STATES
from microvm_dashboards.no_data import NOT_WHOLE
from microvm_dashboards.panels import Panel, Text, tile
from microvm_dashboards.queries import now
from microvm_dashboards.selectors import HOST, VM, series

__all__ = ["tiles"]

_NO_VM: Final = "unknown: no such MicroVM, or systemd could not be asked"
_RUNNING: Final = series("microvm_vm_running", VM)


def tiles() -> list[tuple[int, Panel]]:
    """What it does now."""
    return [(6, one) for one in (_now(), _runs_for(), _restarted(), _found())]


def _now() -> Panel:
    return tile(
        Text(
            "State",
            "Whether it runs. *Down*: it should run by itself and does not. *Stopped*: it need not"
            " run. *Findings*: it has drift, see below. *Unknown*: systemd could not be asked, or"
            " there is no such MicroVM any more.",
            _NO_VM,
        ),
        now(vm_states(VM)),
        mappings=VM_STATES,
    )


def _runs_for() -> Panel:
    return tile(
        Text(
            "Runs for",
            "Time since it was started last, by systemd or by a person.",
            _NO_VM,
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
            _NO_VM,
        ),
        now(
            f"(round(sum(increase({restarts}[$__range]))) or 0 * max({_RUNNING}) - 1)"
            f" and on () {systemd_asked(HOST)}"
        ),
        mappings=RESTARTS,
        steps={0: colours.GOOD, 1: colours.WARNING, 5: colours.CRITICAL},
        decimals=0,
    )


def _found() -> Panel:
    return tile(
        Text(
            "Worst finding",
            "The severity of its worst finding now. *None* only when every collector has looked at"
            " everything.",
            NOT_WHOLE,
        ),
        now(host_count(f"max({ranked(VM)})", HOST)),
        mappings=SEVERITIES,
    )
