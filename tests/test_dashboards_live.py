"""Every query of the dashboards, asked of a real Prometheus on the simulated history.

What they select is checked in test_dashboards.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from host.prometheus import Prometheus
from host.service import ServiceError, missing
from microvm_exporter.model import Collector
from microvm_simulator.blocks import make_blocks
from microvm_simulator.history import HISTORY, write_blocks
from microvm_simulator.host import SimulatedHost
from microvm_simulator.rules import RULES, Span, evaluate
from microvm_simulator.samples import Samples, Target
from screenshots.answers import answer, choose, events, offered
from screenshots.dashboard import FOLDER, Dashboard
from screenshots.scenes import END, OTHERS, README, Scene
from world import World

MAX_SERIES = 200
SHORT: Final = Span(END - 300, END, HISTORY.step)
LEFT_OUT: Final = "microvm_exporter_left_out_objects"

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
    samples = Samples()
    bare = SimulatedHost("bare", World(), SHORT.begin)
    for now in SHORT:
        _scrape(samples, bare, now)
    make_blocks(samples, tmp_path)
    with Prometheus("{}", tmp_path, HISTORY.flag) as prometheus:
        told = _tiles("microvm-host", prometheus, END, instance="bare")
    assert [title for title, values in told.items() if len(values) != 1] == []
    assert told["VMs"] == told["Running"] == told["Restarts"] == told["Strays"] == ["0"]


@live
def test_what_is_left_out_is_never_called_fine(tmp_path: Path) -> None:
    """All collectors work, yet one host leaves out half of it in the end: nothing is green there.

    One leaves out what is no MicroVM, by its name: that takes nothing from what it says. Of one a
    collector fails besides, and it counts once.
    """
    names = ("cut", "fine", "worse")
    cut, fine, worse = (SimulatedHost(name, World().add("web"), SHORT.begin) for name in names)
    samples, before = Samples(), END - 180
    for now in SHORT:
        if now > before:
            cut.world.state_left_out = worse.world.state_left_out = 3
            worse.world.unread[Collector.LINKS] = "truncated"
            cut.changed()
            worse.changed()
        _scrape(samples, cut, now)
        _scrape(samples, worse, now)
        misnamed = _scrape(samples, fine, now).series(LEFT_OUT, collector="state", reason="name")
        samples.add(misnamed, 2, now)
    for record, at, value in evaluate(RULES, samples, SHORT):
        samples.add(record, value, at)
    make_blocks(samples, tmp_path)
    counts = ("Critical", "Warning", "Info", "Drifted", "Down")
    with Prometheus("{}", tmp_path, HISTORY.flag) as prometheus:
        for host, sight, zero, row in (
            ("cut", "20", [], ("left_out", "state: limit", "4")),
            ("fine", "21", ["0"], ("nothing_found", "", "0")),
        ):
            tiles = _tiles("microvm-host", prometheus, END, instance=host)
            assert tiles["Exporter"] == [sight]
            assert [tiles[title] for title in counts] == [zero] * len(counts)
            vm = _tiles("microvm-vm", prometheus, END, instance=host, vm="web")
            assert vm["Worst finding"] == zero
            for name, title in (
                ("microvm-host", "What to fix first"),
                ("microvm-vm", "What to do"),
            ):
                given = {"instance": host, "vm": "web"}
                (found,) = _answers(name, prometheus, END, **given)[title, "A"]
                labels = found["metric"]
                assert (labels["kind"], labels.get("object", ""), found["value"][1]) == row
        partly = ["links failed", "state incomplete", "state incomplete"]
        for at, blind, none, reasons in ((before, "0", "0", []), (END, "2", "-1", partly)):
            told = _tiles("microvm-fleet", prometheus, at)
            assert told["Hosts partly blind"] == [blind]
            assert told["Critical findings"] == told["Drifted hosts"] == [none]
            assert told["Drifted VMs"] == [none]
            answers = _answers("microvm-fleet", prometheus, at)
            why = [one["metric"]["why"] for one in answers["Hosts not seen whole", "A"]]
            assert sorted(why) == reasons
            conditions = [answers["Hosts by condition", ref][0]["values"][-1][1] for ref in "ABCD"]
            assert conditions == ["0", "0", blind, str(3 - int(blind))]


def _scrape(samples: Samples, host: SimulatedHost, now: int) -> Target:
    """Have Prometheus scrape the host."""
    target = Target(HISTORY.job, host.name)
    host.live(now - HISTORY.step, now)
    samples.add_page(host.expose(), now, target)
    samples.add(target.series("up"), 1, now)
    return target


def _tiles(name: str, prometheus: Prometheus, end: int, **given: str) -> dict[str, list[str]]:
    """What each tile of a dashboard is told, by its title."""
    tiles = {panel["title"] for panel in _short(name).panels if panel["type"] == "stat"}
    answers = _answers(name, prometheus, end, **given).items()
    return {
        title: [one["value"][1] for one in told] for (title, _), told in answers if title in tiles
    }


def _answers(
    name: str, prometheus: Prometheus, end: int, **given: str
) -> dict[tuple[str, str], Any]:
    """What each query of a dashboard is answered, by its panel's title and its own name."""
    dashboard = _short(name)
    titles = {panel["id"]: panel["title"] for panel in dashboard.panels}
    choices = choose(dashboard, prometheus, given, end)
    return {
        (titles[query.panel], query.ref): answer(query, dashboard, prometheus, end)
        for query in dashboard.queries(choices)
    }


def _short(name: str) -> Dashboard:
    return Dashboard(FOLDER / f"{name}.json", HISTORY.step, SHORT.end - SHORT.begin)


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
