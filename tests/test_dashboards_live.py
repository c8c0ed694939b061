"""Every query of the dashboards, asked of a real Prometheus on the simulated history."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from host.prometheus import Prometheus
from host.service import ServiceError, missing
from microvm_simulator.history import HISTORY, write_blocks
from screenshots.answers import answer, choose, events, offered
from screenshots.dashboard import FOLDER, Dashboard
from screenshots.scenes import END, OTHERS, README, Scene

DASHBOARDS = sorted(FOLDER.glob("microvm-*.json"))

MAX_SERIES = 200

EMPTY: dict[tuple[str, str], str] = {}
"""What stays empty in the history: dashboard and title, and why that is no fault of the query."""

NOT_IN_THE_HISTORY = {"microvm_exporter_left_out_objects"}
"""Metrics that are there only while something is left out, which no host of the history does."""

# Before a job is chosen there is none to be matched, and before a host none either.
UNMATCHED: dict[str, tuple[str, ...]] = {
    "variable cluster": ("job", "instance"),
    "variable job": ("job", "instance"),
    "variable instance": ("instance",),
}

SELECTOR = re.compile(r'([a-zA-Z_:][\w:]*)?\{((?:[^{}"]|"(?:[^"\\]|\\.)*")*)\}')
NAMES = re.compile(r'__name__=~?"([^"]+)"')
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@pytest.mark.skipif((why := missing("prometheus", "promtool")) is not None, reason=why or "")
def test_queries_of_all_dashboards(tmp_path: Path) -> None:
    """One test, so that the history is made once."""
    write_blocks(tmp_path, END)
    with Prometheus("{}", tmp_path, HISTORY.flag) as prometheus:
        check = Check(prometheus)
        for path in DASHBOARDS:
            check.texts(Dashboard(path, HISTORY.step, HISTORY.length))
        for scene in README + OTHERS:
            check.scene(scene)
    check.told_something()
    assert not check.wrong, "\n".join(check.wrong)


@dataclass
class Check:
    """What is wrong with the queries, one line each."""

    prometheus: Prometheus
    wrong: list[str] = field(default_factory=list)
    data: dict[tuple[str, str], int] = field(default_factory=dict)
    """By dashboard and title of a query, the most series that it has given."""

    def __post_init__(self) -> None:
        self.metrics = set(self.prometheus.api("label/__name__/values"))

    def texts(self, dashboard: Dashboard) -> None:
        """Metrics are known, and matched by the job and, where one is chosen, the host."""
        own = ("job",) if dashboard.name == "microvm-fleet" else ("job", "instance")
        for title, expr in written(dashboard):
            wanted = [label for label in own if label not in UNMATCHED.get(title, ())]
            where = f"{dashboard.name}, {title}: {expr}"
            found = list(SELECTOR.finditer(expr))
            for selector in found:
                names = selector[1] or "".join(NAMES.findall(selector[2]))
                if unknown := set(names.split("|")) - self.metrics - NOT_IN_THE_HISTORY:
                    self.wrong.append(f"{sorted(unknown)} not known: {where}")
                for label in wanted:
                    if f'{label}="${label}"' not in selector[2]:
                        self.wrong.append(f"{names} not matched by {label}: {where}")
            rest = STRING.sub("", SELECTOR.sub("", expr))
            if not found or self.metrics & set(re.findall(r"[\w:]+", rest)):
                self.wrong.append(f"a metric without matchers: {where}")

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
            if (number == 0) != (cluster or key in EMPTY):
                self.wrong.append(f"{', '.join(key)}: {number} series, {EMPTY.get(key, 'why?')}")


def written(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """Every query as it is written, with what it is for."""
    for panel in dashboard.panels:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard.annotations:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard.variables:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", braced(variable["query"]["query"])


def braced(query: str) -> str:
    """``label_values(a, b)`` selects as ``label_values(a{}, b)`` does."""
    return re.sub(r"\((\w+),", r"(\1{},", query)
