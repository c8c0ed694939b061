"""A dashboard as Grafana reads it: its panels, its time, and every query it makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from screenshots.variables import Choice, Choices, interpolate

FOLDER: Final = Path(__file__).resolve().parents[1]

Json = dict[str, Any]

_NICE_STEPS: Final = (15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PAGE_WIDTH: Final = 1600


@dataclass(frozen=True, slots=True)
class Query:
    """A question to Prometheus, with everything chosen filled in."""

    panel: int
    ref: str
    expr: str
    instant: bool
    step: int
    """Seconds between two points of a range; of an instant query what ``$__interval`` says."""


class Dashboard:
    """One of the committed files.

    ``scrape`` is the data source's scrape interval, ``longest`` the longest time to be shown, where
    there is no more data; both in seconds.
    """

    def __init__(self, path: Path, scrape: int, longest: int | None = None) -> None:
        self.name = path.stem
        self.json: Json = json.loads(path.read_text())
        self._scrape = scrape
        self._longest = longest

    @property
    def panels(self) -> list[Json]:
        """All panels, and the rows before them."""
        return list(self.json["panels"])

    @property
    def variables(self) -> list[Json]:
        return list(self.json["templating"]["list"])

    @property
    def annotations(self) -> list[Json]:
        """Those that are queries; Grafana's own, of its database, is none."""
        listed = self.json["annotations"]["list"]
        return [annotation for annotation in listed if annotation.get("expr")]

    @property
    def span(self) -> int:
        """How many seconds it shows when it is opened: ``now-6h`` is 21600."""
        match = re.fullmatch(r"now-(\d+)([smhdw])", self.json["time"]["from"])
        assert match, self.json["time"]
        seconds = int(match[1]) * _UNITS[match[2]]
        return min(seconds, self._longest or seconds)

    def queries(self, choices: Choices) -> Iterator[Query]:
        """Every query of every panel."""
        for panel in self.panels:
            step = self._step(panel)
            for target in panel.get("targets", ()):
                expr = self.fill(target["expr"], choices, step)
                instant = bool(target.get("instant"))
                yield Query(panel["id"], target["refId"], expr, instant, step)

    def fill(self, expr: str, choices: Choices, step: int, least: int | None = None) -> str:
        """Give the query that Grafana sends for an expression, its own variables filled in too.

        ``least`` is the query's own least step, if it has one: a rate is taken over four of these.
        """
        least = least or self._scrape
        own = {
            "__interval": f"{step}s",
            "__rate_interval": f"{max(step + least, 4 * least)}s",
            "__range": f"{self.span}s",
            "__range_s": f"{self.span}",
        }
        own_choices = {name: Choice((value,)) for name, value in own.items()}
        return interpolate(expr, {**choices, **own_choices}, "prometheus")

    def _step(self, panel: Json) -> int:
        """A point a pixel at most, and none between two scrapes."""
        wanted = self.span / (panel["gridPos"]["w"] / 24 * _PAGE_WIDTH)
        nice = min(_NICE_STEPS, key=lambda step: abs(step - wanted))
        return max(nice, self._scrape)
