"""How long a Prometheus takes for what the dashboards ask of it, over hours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from host.prometheus import Prometheus
from microvm_simulator.blocks import make_blocks
from microvm_simulator.samples import Samples, series
from screenshots.answers import answer, choose
from screenshots.dashboard import FOLDER, Dashboard

__all__ = ["Asked", "ask", "backfill", "dashboards"]

_DAY: Final = 86_400
_STEP: Final = 60
_TIMES: Final = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of a panel: the median of the seconds it took, and how many series it gave."""

    panel: str
    expr: str
    seconds: float
    series: int


def dashboards() -> list[Path]:
    """Give the committed dashboards."""
    return sorted(FOLDER.glob("microvm-*.json"))


def ask(
    path: Path, prometheus: Prometheus, scrape: int, given: dict[str, str], end: float
) -> Sequence[Asked]:
    """Make every query of a dashboard, as Grafana would when it is opened; a few times each."""
    dashboard = Dashboard(path, scrape)
    titles = {panel["id"]: panel.get("title", "") for panel in dashboard.panels}
    choices = choose(dashboard, prometheus, given, end)
    asked = []
    for query in dashboard.queries(choices):
        seconds, found = [], []
        for _ in range(_TIMES):
            begun = time.perf_counter()
            found = answer(query, dashboard, prometheus, end)
            seconds.append(time.perf_counter() - begun)
        asked.append(Asked(titles[query.panel], query.expr, statistics.median(seconds), len(found)))
    return asked


def backfill(prometheus: Prometheus, data: Path, selectors: Sequence[str], end: float) -> int:
    """Give the matching series the values that they have now for a day, a sample a minute.

    Prometheus finds the blocks within a minute. Returns the number of samples.
    """
    samples, number = Samples(), 0
    steps = range(int(end) - _DAY, int(end) - _STEP, _STEP)
    for name, value in _now(prometheus, selectors):
        for at in steps:
            samples.add(name, value, at)
        number += len(steps)
    make_blocks(samples, data)
    return number


def _now(prometheus: Prometheus, selectors: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    for selector in selectors:
        for found in prometheus.query(selector):
            labels = dict(found["metric"])
            yield series(labels.pop("__name__"), labels), found["value"][1].encode()
