"""A real Alertmanager: configured, given alerts, asked, ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from host.service import Service


class Alertmanager(Service):
    """Alertmanager, alone, on a configuration as a text (JSON will do) or as a file.

    Paths in a file are relative to it.
    """

    def __init__(self, config: str | Path) -> None:
        super().__init__("prometheus-alertmanager")
        file = config if isinstance(config, Path) else self.folder / "alertmanager.yml"
        if isinstance(config, str):
            file.write_text(config)
        self.start(
            f"--config.file={file}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address={self.address}",
            f"--web.external-url={self.url}/",
            "--cluster.listen-address=",  # no gossip: neither a second port nor a wait for peers
            "--log.level=warn",
            memory="128MiB",
        )

    def fire(self, *alerts: dict[str, Any]) -> None:
        """Give it alerts in the form of its API: ``labels``, ``annotations``, ``startsAt`` …"""
        self.request("/api/v2/alerts", "POST", alerts)

    def alerts(self) -> Sequence[dict[str, Any]]:
        """The alerts it has, with ``status`` ``{"state", "inhibitedBy", "silencedBy"}``."""
        found: list[dict[str, Any]] = json.loads(self.request("/api/v2/alerts"))
        return found

    def inhibited(self) -> set[str]:
        """The names of the alerts that are inhibited."""
        alerts = self.alerts()
        return {a["labels"]["alertname"] for a in alerts if a["status"]["inhibitedBy"]}
