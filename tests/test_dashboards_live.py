"""Every query of the dashboards, asked of a real Prometheus on the simulated history.

What they select is checked in test_dashboards.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from host.prometheus import Prometheus
from host.service import ServiceError, missing
from microvm_simulator.blocks import make_blocks
from microvm_simulator.history import HISTORY, write_blocks
from microvm_simulator.host import SimulatedHost
from microvm_simulator.samples import Samples, Target
from screenshots.answers import answer, choose, events, offered
from screenshots.dashboard import FOLDER, Dashboard
from screenshots.scenes import END, OTHERS, README, Scene
from world import World

MAX_SERIES = 200

live = pytest.mark.skipif((why := missing("prometheus", "promtool")) is not None, reason=why or "")


@live
def test_queries_of_all_dashboards(tmp_path: Path) -> None:
    """One test, so that the history is made once."""
    write_blocks(tmp_path, END)
    with Prometheus("{}", tmp_path, HISTORY.flag) as prometheus:
        check = Check(prometheus)
        for scene in README + OTHERS:
            check.scene(scene)
    check.told_something()
    assert not check.wrong, "\n".join(check.wrong)


@live
def test_host_without_microvms_is_known_to_have_none(tmp_path: Path) -> None:
    """Its counts are of nothing that there is, and yet no tile says that it is unknown."""
    host, target = SimulatedHost("bare", World(), END - 300), Target(HISTORY.job, "bare")
    samples = Samples()
    for now in range(END - 300, END + 1, HISTORY.step):
        host.live(now - HISTORY.step, now)
        samples.add_page(host.expose(), now, target)
        samples.add(target.series("up"), 1, now)
    make_blocks(samples, tmp_path)
    dashboard = Dashboard(FOLDER / "microvm-host.json", HISTORY.step, 300)
    tiles = {panel["id"]: panel["title"] for panel in dashboard.panels if panel["type"] == "stat"}
    with Prometheus("{}", tmp_path, HISTORY.flag) as prometheus:
        choices = choose(dashboard, prometheus, {"instance": "bare"}, END)
        told = {
            tiles[query.panel]: [
                one["value"][1] for one in answer(query, dashboard, prometheus, END)
            ]
            for query in dashboard.queries(choices)
            if query.panel in tiles
        }
    assert [title for title, values in told.items() if len(values) != 1] == []
    assert told["VMs"] == told["Running"] == told["Restarts"] == told["Strays"] == ["0"]


@dataclass
class Check:
    """What is wrong with the queries, one line each."""

    prometheus: Prometheus
    wrong: list[str] = field(default_factory=list)
    data: dict[tuple[str, str], int] = field(default_factory=dict)
    """By dashboard and title of a query, the most series that it has given."""

    def scene(self, scene: Scene) -> None:
        """Queries are answered, with no more series than a panel can show."""
        dashboard = Dashboard(scene.path, HISTORY.step, HISTORY.length)
        choices = choose(dashboard, self.prometheus, scene.given, scene.end)
        for variable in dashboard.variables:
            name = variable["name"]
            values = offered(variable, dashboard, self.prometheus, choices, scene.end)
            self.count(dashboard, f"variable {name}", len(values))
            if name in scene.given and scene.given[name] not in values:
                self.wrong.append(f"{scene.name}: {name} offers no {scene.given[name]}: {values}")
        titles = {panel["id"]: panel["title"] for panel in dashboard.panels}
        for query in dashboard.queries(choices):
            title = f"{titles[query.panel]} {query.ref}"
            try:
                found = answer(query, dashboard, self.prometheus, scene.end)
            except ServiceError as error:
                self.wrong.append(f"{scene.name}, {title}: {error}: {query.expr}")
                continue
            self.count(dashboard, title, len(found))
        for annotation in dashboard.annotations:
            marks = events(annotation, dashboard, self.prometheus, choices, scene.end)
            self.count(dashboard, f"annotation {annotation['name']}", len(marks))

    def count(self, dashboard: Dashboard, title: str, number: int) -> None:
        key = (dashboard.name, title)
        self.data[key] = max(self.data.get(key, 0), number)

    def told_something(self) -> None:
        """Each query has given something in some scene, and nowhere too much."""
        for key, number in sorted(self.data.items()):
            if number > MAX_SERIES:
                self.wrong.append(f"{', '.join(key)}: {number} series")
            cluster = key[1] == "variable cluster"  # the history has no such label
            if (number == 0) != cluster:
                self.wrong.append(f"{', '.join(key)}: {number} series")
