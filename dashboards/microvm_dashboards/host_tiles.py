"""The tiles of the host dashboard: how much is wrong, and whether that can be trusted."""

from __future__ import annotations

from typing import Final

from microvm_dashboards import colours, links
from microvm_dashboards.expressions import host_count, seen_whole, sight
from microvm_dashboards.mappings import SIGHT
from microvm_dashboards.panels import Panel, Steps, Text, tile
from microvm_dashboards.queries import now
from microvm_dashboards.selectors import HOST, series

__all__ = ["findings_tiles", "host_tiles"]

_UNKNOWN: Final = "unknown: a collector could not look, or the exporter does not answer"
_NONE_BROKEN: Final[Steps] = {0: colours.GOOD, 1: colours.CRITICAL}
_NONE_WRONG: Final[Steps] = {0: colours.GOOD, 1: colours.WARNING}
_NONE_LEFT: Final[Steps] = {0: colours.GOOD, 1: colours.INFO}
_RUNNING: Final = series("microvm_vm_running", HOST)


def findings_tiles() -> list[tuple[int, Panel]]:
    """Findings, and what they are found on."""
    tiles = (
        _exporter(),
        _found("critical", "Critical", "a wanted MicroVM does not work: now", _NONE_BROKEN),
        _found("warning", "Warning", "somebody should look today", _NONE_WRONG),
        _found("info", "Info", "what can wait until there is time", _NONE_LEFT),
        _drifted(),
        _down(),
    )
    return [(4, one) for one in tiles]


def host_tiles() -> list[tuple[int, Panel]]:
    """What the host is like."""
    tiles = (_age(), _skipped(), _strays(), _restarted(), _running(), _declared())
    return [(4, one) for one in tiles]


def _exporter() -> Panel:
    return tile(
        Text(
            "Exporter",
            "Whether the exporter answers and all its collectors can look. *Partly blind*: what is"
            " shown here may lack findings. It leads to the exporter's dashboard.",
            "unknown: Prometheus has nothing of this host in this time",
        ),
        now(sight(HOST)),
        mappings=SIGHT,
        links=[links.to_exporter()],
    )


def _found(severity: str, title: str, meaning: str, steps: Steps) -> Panel:
    found = series("microvm_drift_finding", HOST, severity=severity)
    return tile(
        Text(
            title,
            f"Findings of severity {severity}: {meaning}. Green only when every collector has"
            " looked.",
            _UNKNOWN,
        ),
        now(host_count(f"count({found})", HOST)),
        steps=steps,
    )


def _drifted() -> Panel:
    drifted = series("microvm_drifted_vms", HOST)
    return tile(
        Text("Drifted", "MicroVMs with at least one finding of any severity.", _UNKNOWN),
        now(host_count(f"sum({drifted}) > 0", HOST)),
        steps=_NONE_WRONG,
    )


def _down() -> Panel:
    wanted = series("microvm_vm_info", HOST, autostart="true")
    down = f"count(max by (vm) ({_RUNNING}) == 0 and on (vm) {wanted})"
    return tile(
        Text("Down", "MicroVMs that should start by themselves and do not run.", _UNKNOWN),
        now(host_count(down, HOST)),
        steps=_NONE_BROKEN,
    )


def _age() -> Panel:
    looked = series("microvm_exporter_last_refresh_timestamp_seconds", HOST)
    return tile(
        Text(
            "Age",
            "How old what is shown is: time since the exporter last looked at the host. From 10"
            " minutes on it stands still.",
            "unknown: the exporter does not answer",
        ),
        now(f"time() - max({looked})"),
        "s",
        steps={0: colours.GOOD, 120: colours.WARNING, 600: colours.CRITICAL},
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
        steps=_NONE_WRONG,
    )


def _strays() -> Panel:
    return tile(
        Text(
            "Strays",
            "Stray TAPs: devices of the microvm user that no MicroVM claims. The table says which.",
            "unknown: the links or the state directory could not be read",
        ),
        now(f"sum({series('microvm_stray_tap_devices', HOST)})"),
        steps=_NONE_WRONG,
    )


def _restarted() -> Panel:
    restarts = series("microvm_vm_restarts_total", HOST)
    return tile(
        Text(
            "Restarts",
            "Automatic restarts of MicroVMs in the time range.",
            _UNKNOWN,
        ),
        now(f"round(sum(increase({restarts}[$__range]))) and on () {seen_whole(HOST)}"),
        steps={0: colours.GOOD, 1: colours.WARNING},
    )


def _running() -> Panel:
    return tile(
        Text(
            "Running",
            "MicroVMs that run, declared or not.",
            "unknown: systemd could not be asked",
        ),
        now(f"sum({_RUNNING})"),
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
