"""What is drawn: which dashboard, with what chosen, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from host.prometheus import Prometheus
from microvm_simulator.history import HISTORY
from screenshots.answers import answer, choose, events
from screenshots.dashboard import FOLDER, Dashboard
from screenshots.variables import Choices, interpolate_all, shown

END: Final = int(datetime(2026, 11, 23, 16, 20, tzinfo=UTC).timestamp())
"""The end of the history, always the same: what did not change is drawn as it was."""

_BLIND: Final = HISTORY.failed_collector_host
_BLIND_AT: Final = 125  # minute of the history in which its systemd cannot be read
_HEALTHY: Final = next(name for name in HISTORY.instances if name.startswith("fir."))


@dataclass(frozen=True, slots=True)
class Scene:
    """A dashboard with values of its variables; seen from a minute of the history, or its end."""

    name: str
    dashboard: str
    given: Mapping[str, str] = field(default_factory=dict)
    minute: int = HISTORY.length // 60
    until: str | None = None
    """Title of the panel before which its picture in the README ends."""

    @property
    def end(self) -> int:
        """The Unix time at which the picture ends."""
        return END - HISTORY.length + self.minute * 60

    @property
    def path(self) -> Path:
        """The dashboard's file."""
        return FOLDER / f"microvm-{self.dashboard}.json"


def _of(name: str, dashboard: str, instance: str, vm: str = "", **more: Any) -> Scene:
    given = {"instance": instance} | ({"vm": vm} if vm else {})
    return Scene(name, dashboard, given, **more)


README: Final = (
    Scene("fleet", "fleet"),
    _of("host", "host", HISTORY.drifted_host, until="All MicroVMs"),
    _of("vm", "vm", HISTORY.drifted_host, "api"),
    _of("exporter", "exporter", HISTORY.restarted_host),
)
"""One of each dashboard; the pictures have these names."""

OTHERS: Final = (
    Scene("fleet-blind", "fleet", minute=_BLIND_AT),
    _of("host-healthy", "host", _HEALTHY),
    _of("host-blind", "host", _BLIND, minute=_BLIND_AT),
    _of("host-vanished", "host", HISTORY.vanished_host),
    _of("vm-healthy", "vm", _HEALTHY, "tenant-01"),
    _of("vm-loop", "vm", HISTORY.drifted_host, HISTORY.vm, minute=340),
    _of("vm-undeclared", "vm", HISTORY.drifted_host, "wiki"),
    _of("vm-leftover", "vm", HISTORY.drifted_host, "old-backup"),
    _of("vm-dotted", "vm", HISTORY.drifted_host, HISTORY.dotted_vm),
    _of("vm-blind", "vm", _BLIND, "web", minute=_BLIND_AT),
    _of("exporter-blind", "exporter", _BLIND, minute=_BLIND_AT),
    _of("exporter-healthy", "exporter", _HEALTHY),
    _of("exporter-vanished", "exporter", HISTORY.vanished_host),
)
"""The states that a dashboard must not be misread in."""


def page(scene: Scene, prometheus: Prometheus) -> dict[str, Any]:
    """Give what harness/input.ts calls an input, but for theme and width."""
    dashboard = Dashboard(scene.path, HISTORY.step, HISTORY.length)
    choices = choose(dashboard, prometheus, scene.given, scene.end)
    answers: dict[int, dict[str, Any]] = {}
    for query in dashboard.queries(choices):
        result = answer(query, dashboard, prometheus, scene.end)
        told = {"step": query.step * 1000, "result": result}
        answers.setdefault(query.panel, {})[query.ref] = told
    return {
        "from": (scene.end - dashboard.span) * 1000,
        "to": scene.end * 1000,
        "dashboard": interpolate_all(dashboard.json, choices),
        "answers": answers,
        "events": list(_marks(dashboard, prometheus, choices, scene.end)),
        "variables": [
            {"label": variable["label"], "value": shown(choices[variable["name"]])}
            for variable in dashboard.variables
        ],
    }


def _marks(
    dashboard: Dashboard, prometheus: Prometheus, choices: Choices, end: int
) -> Iterator[dict[str, Any]]:
    for annotation in dashboard.annotations:
        look = {"name": annotation["name"], "color": annotation["iconColor"]}
        for begin, until in events(annotation, dashboard, prometheus, choices, end):
            yield {**look, "from": begin * 1000, "to": until * 1000}
