"""A real Prometheus: configured, asked, ended.

::

    with Prometheus(config_text) as prometheus:
        prometheus.query('up{job="microvm"}')
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from host.service import Service

Result = list[dict[str, Any]]
"""Of an instant query ``[{"metric": labels, "value": [time, text]}]``, of a range ``"values"``."""


class Prometheus(Service):
    """Prometheus on a configuration, as a text (JSON will do) or as a file.

    Paths in a file are relative to it. ``data`` is where its blocks are and come to; without it
    they go with the server. ``flags`` are more of Prometheus' own.
    """

    def __init__(
        self,
        config: str | Path,
        data: Path | None = None,
        *flags: str,
        memory: str = "512MiB",
    ) -> None:
        super().__init__("prometheus")
        file = config if isinstance(config, Path) else self.folder / "prometheus.yml"
        if isinstance(config, str):
            file.write_text(config)
        self.start(
            f"--config.file={file}",
            f"--storage.tsdb.path={data or self.folder / 'data'}",
            "--storage.tsdb.retention.time=10y",  # no block is too old to be asked for
            f"--web.listen-address={self.address}",
            f"--web.external-url={self.url}/",
            "--web.enable-lifecycle",
            "--log.level=warn",
            *flags,
            memory=memory,
        )

    def query(self, expr: str, time: float | None = None) -> Result:
        """Evaluate at a Unix time, now unless given; a vector."""
        at = {} if time is None else {"time": str(time)}
        result: Result = self.api("query", query=expr, **at)["result"]
        return result

    def query_range(self, expr: str, start: float, end: float, step: float) -> Result:
        """Evaluate from ``start`` to ``end``, Unix times, every ``step`` seconds."""
        steps = {"start": str(start), "end": str(end), "step": str(step)}
        result: Result = self.api("query_range", query=expr, **steps)["result"]
        return result

    def api(self, path: str, **parameters: str | Sequence[str]) -> Any:
        """What ``/api/v1/PATH`` gives as data; raises ServiceError with what Prometheus refused."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        return json.loads(self.request(f"/api/v1/{path}?{query}"))["data"]
