"""The tiles of the host dashboard: how much is wrong, and whether that can be trusted."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import links
from microvm_dashboards.expressions import host_count, sight, systemd_asked
from microvm_dashboards.mappings import VM_STATES
from microvm_dashboards.no_data import NO_HOST, NO_SYSTEMD, NOT_WHOLE, SILENT
from microvm_dashboards.panels import Panel, Text, tile
from microvm_dashboards.queries import now
from microvm_dashboards.selectors import HOST, series
from microvm_dashboards.steps import FRESH, NONE_BROKEN, NONE_LEFT, NONE_WRONG, Steps

__all__ = ["exporter_tile", "findings_tiles", "host_tiles"]

_RUNNING: Final = series("microvm_vm_running", HOST)


def findings_tiles() -> list[tuple[int, Panel]]:
    """Findings, and what they are found on."""
    tiles = (
        exporter_tile(),
        _found("critical", "Critical", "a wanted MicroVM does not work: now", NONE_BROKEN),
        _found("warning", "Warning", "somebody should look today", NONE_WRONG),
        _found("info", "Info", "what can wait until there is time", NONE_LEFT),
        _drifted(),
        _down(),
    )
    return [(4, one) for one in tiles]


def host_tiles() -> list[tuple[int, Panel]]:
    """What the host is like."""
    tiles = (_age(), _skipped(), _strays(), _restarted(), _running(), _declared())
    return [(4, one) for one in tiles]


def exporter_tile() -> Panel:
    """Whether the host is seen."""
    return tile(
        Text(
            "Exporter",
            "Whether the exporter answers and all its collectors can look at everything. *Partly"
            " blind*: what is shown here may lack findings. It leads to the exporter's dashboard.",
            NO_HOST,
        ),
        now(sight(HOST)),
        mappings=VM_STATES,
        links=[links.to_exporter()],
    )


def _found(severity: str, title: str, meaning: str, steps: Steps) -> Panel:
    found = series("microvm_drift_finding", HOST, severity=severity)
    return tile(
        Text(
            title,
            f"Findings of severity {severity}: {meaning}. Green only when every collector has"
            " looked at everything.",
            NOT_WHOLE,
        ),
        now(host_count(f"count({found})", HOST)),
        steps=steps,
    )


def _drifted() -> Panel:
    drifted = series("microvm_drifted_vms", HOST)
    return tile(
        Text("Drifted", "MicroVMs with at least one finding of any severity.", NOT_WHOLE),
        now(host_count(f"sum({drifted}) > 0", HOST)),
        steps=NONE_WRONG,
    )


def _down() -> Panel:
    wanted = series("microvm_vm_info", HOST, autostart="true")
    down = f"count(max by (vm) ({_RUNNING}) == 0 and on (vm) {wanted})"
    return tile(
        Text("Down", "MicroVMs that should start by themselves and do not run.", NOT_WHOLE),
        now(host_count(down, HOST)),
        steps=NONE_BROKEN,
    )


def _age() -> Panel:
    looked = series("microvm_exporter_last_refresh_timestamp_seconds", HOST)
    return tile(
        Text(
            "Age",
            "How old what is shown is: time since the exporter last looked at the host. From 10"
            " minutes on it stands still.",
            SILENT,
        ),
        now(f"time() - max({looked})"),
        "s",
        steps=FRESH,
        decimals=0,
    )


def _skipped() -> Panel:
    return tile(
        Text(
            "Skipped",
            "Failed condition checks: units whose last start systemd skipped because of a"
            " condition that should have held. What every healthy host shows is not counted.",
            "unknown: systemd or the state directory could not be read",
        ),
        now(f"sum({series('microvm_failed_condition_checks', HOST)})"),
        steps=NONE_WRONG,
    )


def _strays() -> Panel:
    taps = series("microvm_stray_tap_devices", HOST)
    macvtaps = series("microvm_drift_findings", HOST, kind="stray_macvtap")
    return tile(
        Text(
            "Strays",
            "TAPs and macvtaps that no MicroVM claims. The table says which.",
            "unknown: systemd, the links or the state directory could not be read",
        ),
        now(f"sum({taps}) + sum({macvtaps})"),
        steps=NONE_WRONG,
    )


def _restarted() -> Panel:
    restarts = series("microvm_vm_restarts_total", HOST)
    return tile(
        Text("Restarts", "Automatic restarts of MicroVMs in the time range.", NO_SYSTEMD),
        now(
            f"(round(sum(increase({restarts}[$__range]))) or {systemd_asked(HOST)} - 1)"
            f" and on () {systemd_asked(HOST)}"
        ),
        steps=NONE_WRONG,
    )


def _running() -> Panel:
    return tile(
        Text("Running", "MicroVMs that run, declared or not.", NO_SYSTEMD),
        now(f"sum({_RUNNING}) or {systemd_asked(HOST)} - 1"),
    )


def _declared() -> Panel:
    return tile(
        Text(
            "VMs",
            "MicroVMs that the host's configuration declares.",
            "unknown: the declaration could not be read",
        ),
        now(f"sum({series('microvm_declared_vms', HOST)})"),
    )
