"""Who hears of what, and what goes unsaid: the shipped example, on a live Alertmanager.

What is hidden is tried for every pair of alerts of the shipped rules, and pinned as a whole in
``golden/alertmanager/hidden.txt``.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import yaml

from golden import assert_golden
from host.alertmanager import Alertmanager
from host.examples import ALERTMANAGER, RULES
from host.machine import eventually
from microvm_exporter.drift import Kind
from microvm_exporter.drift.rules import RULES as DRIFT
from microvm_exporter.durations import parse_duration
from microvm_exporter.model import Collector
from tools import tool

Labels = Mapping[str, str]
Key = frozenset[tuple[str, str]]


def _amtool(*arguments: str) -> str:
    done = subprocess.run(
        [tool("amtool"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_example_is_accepted() -> None:
    assert "SUCCESS" in _amtool("check-config", str(ALERTMANAGER))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=MicrovmNotRunning severity=critical job=microvm instance=a", "page"),
        ("alertname=MicrovmFleetDegraded severity=critical job=microvm", "page"),
        ("alertname=MicrovmUnitFailed severity=warning job=microvm instance=a", "chat"),
        ("alertname=MicrovmUndeclaredState severity=info job=microvm instance=a", "digest"),
        ("alertname=MicrovmWatchdog severity=none", "watchdog"),
        ("alertname=MicrovmWatchdog severity=none cluster=east", "watchdog"),
        ("alertname=MicrovmWatchdog severity=none cluster=east shard=1", "watchdog"),
        ("alertname=NodeDown severity=critical job=node instance=a", "page"),
        ("alertname=NodeClockSkew severity=warning job=node instance=a", "chat"),
        ("alertname=WithoutSeverity job=node", "chat"),
    ],
)
def test_route(labels: str, receiver: str) -> None:
    routed = _amtool("config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels.split())
    assert routed.strip() == receiver


def _route(receiver: str) -> tuple[dict[str, Any], float, float]:
    """A route, and in seconds how often it looks at a group, and how often it tells the same."""
    routes = yaml.safe_load(ALERTMANAGER.read_text())["route"]["routes"]
    (route,) = (route for route in routes if route["receiver"] == receiver)
    looks, tells = (parse_duration(route[f"{each}_interval"]) for each in ("group", "repeat"))
    return route, looks, tells


def test_watchdog_is_heard_once_a_minute() -> None:
    """At each second look at its group: the first is too early, by as much as that has to spare.

    Were repeat_interval less than group_interval, Alertmanager 0.26 and later would warn of it.
    """
    _, looks, tells = _route("watchdog")
    assert (looks, tells) == (30, 1.5 * looks)


def test_watchdog_is_heard_of_each_prometheus() -> None:
    """One group would go on while any of them lives."""
    route, _, _ = _route("watchdog")
    assert route["group_by"] == ["cluster", "shard"]


def test_digest_comes_once_a_day() -> None:
    """Its group is looked at once while the window is open, and what it told is long ago then."""
    (window,) = yaml.safe_load(ALERTMANAGER.read_text())["time_intervals"]
    (times,) = window["time_intervals"]
    ((begin, end),) = ([*map(_seconds, each.values())] for each in times["times"])
    route, looks, tells = _route("digest")
    assert route["active_time_intervals"] == [window["name"]]
    assert times.keys() == {"times"}, "each day"
    assert looks == end - begin
    assert looks < tells < 24 * 3600 - looks


def _seconds(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60


class Alert(NamedTuple):
    """An alert as the shipped rules make it; its name tells it from its like."""

    name: str
    labels: Labels

    @property
    def severity(self) -> str:
        return self.labels["severity"]

    def __str__(self) -> str:
        return f"{self.name} ({self.severity})"


class Place(NamedTuple):
    """Where an alert is from; ``shard`` tells Prometheus apart that share the hosts."""

    job: str
    instance: str
    vm: str
    shard: str = "0"


HERE = Place("microvm", "a:10686", "web")
SAME_HOST, OTHER_HOST = HERE._replace(vm="mail"), HERE._replace(instance="b:10686")
OTHER_JOB, OTHER_SHARD = HERE._replace(job="other"), OTHER_HOST._replace(shard="1")


def alerts(place: Place) -> list[Alert]:
    """Each alert that the shipped rules can make there, once for each case to be told apart."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    return [alert for rule in rules for alert in _of_rule(rule, place)]


def _of_rule(rule: dict[str, Any], place: Place) -> Iterator[Alert]:
    """Its labels are those that the expression aggregates by; what is told of a whole job has it.

    A failed unit is the MicroVM's own or a helper; other alerts are hidden whatever their object.
    """
    name, expr = rule["alert"], rule["expr"]
    by = re.search(r"by \(([\w, ]+)\)", expr)
    kind = re.search(r'kind="(\w+)"', expr)
    units = [f"{template}@{place.vm}.service" for template in ("microvm", "microvm-virtiofsd")]
    collectors = list(map(str, Collector))
    values = {
        "job": [place.job],
        "instance": [place.instance],
        "vm": [place.vm],
        "kind": [kind[1] if kind else ""],
        "object": units if name == "MicrovmUnitFailed" else units[:1],
        "collector": collectors if name == "MicrovmCollectorFailed" else collectors[:1],
        "reason": ["limit"],
    }
    names = set(by[1].split(", ")) if by else {"job"} if "job=" in expr else set()
    present = [label for label in values if label in names]
    for chosen in itertools.product(*(values[label] for label in present)):
        labels = dict(zip(present, chosen, strict=True))
        told = [labels[label] for label in ("object", "collector") if len(values[label]) > 1]
        labels |= {"alertname": name, "shard": place.shard, **rule["labels"]}
        yield Alert(" ".join([name, *told]), labels)


class Hidden(NamedTuple):
    """That one alert hides another, and at which of the places."""

    source: Alert
    target: Alert
    places: tuple[bool, ...]

    @property
    def where(self) -> str:
        _, on_host, elsewhere, of_another_job, of_another_shard = self.places
        if of_another_job:
            return "of another job"
        if of_another_shard:
            return "of another shard"
        if elsewhere:
            return "on every host"
        return "on its host" if on_host or "vm" not in self.target.labels else "of its MicroVM"


@pytest.fixture(scope="module")
def hidden() -> list[Hidden]:
    """Each alert beside each other one, in a cluster of their own: which of them are hidden."""
    tool("prometheus-alertmanager")
    config = yaml.safe_load(ALERTMANAGER.read_text())
    config |= {"templates": [], "route": {"receiver": "chat", "group_wait": "1h"}}
    places = (HERE, SAME_HOST, OTHER_HOST, OTHER_JOB, OTHER_SHARD)
    targets_of = zip(*map(alerts, places), strict=True)
    pairs = list(itertools.product(alerts(HERE), targets_of))
    keys = [
        [_key({**alert.labels, "cluster": str(cluster)}) for alert in (source, *targets)]
        for cluster, (source, targets) in enumerate(pairs)
    ]
    with Alertmanager(json.dumps(config)) as alertmanager:
        unsaid = _unsaid(alertmanager, {key for pair in keys for key in pair})
    return [
        Hidden(source, targets[0], where)
        for (source, targets), (_, *found) in zip(pairs, keys, strict=True)
        if any(where := tuple(key in unsaid for key in found))
    ]


def _key(labels: Labels) -> Key:
    return frozenset(labels.items())


def _unsaid(alertmanager: Alertmanager, given: set[Key]) -> set[Key]:
    alertmanager.fire(*({"labels": dict(key)} for key in given))
    eventually("all alerts", lambda: len(alertmanager.alerts()) == len(given), 30)
    had = alertmanager.alerts()
    return {_key(alert["labels"]) for alert in had if alert["status"]["inhibitedBy"]}


def test_what_each_alert_hides(hidden: list[Hidden]) -> None:
    lines: dict[str, list[str]] = defaultdict(list)
    for each in hidden:
        lines[f"{each.source} hides, {each.where}:"].append(f"  {each.target}")
    text = "".join("\n".join([head, *sorted(rest)]) + "\n" for head, rest in sorted(lines.items()))
    assert_golden("alertmanager/hidden.txt", text)


def test_only_a_page_hides_a_page(hidden: list[Hidden]) -> None:
    pages = [each for each in hidden if each.target.severity == "critical"]
    assert {each.source.severity for each in pages} == {"critical"}


def test_another_host_is_hidden_only_when_none_is_left(hidden: list[Hidden]) -> None:
    assert not [each for each in hidden if each.where.startswith("of another")]
    elsewhere = {each.source.name for each in hidden if each.where == "on every host"}
    assert elsewhere == {"MicrovmExporterAbsent"}


@pytest.mark.parametrize("name", ["Down", "Gone", "Absent"])
def test_a_host_that_cannot_be_asked_hides_all_drift_but_pages(
    hidden: list[Hidden], name: str
) -> None:
    told = {each.target.name for each in hidden if each.source.name == f"MicrovmExporter{name}"}
    assert {drift.name for drift in _drift() if drift.severity != "critical"} <= told


@pytest.mark.parametrize("collector", Collector)
def test_a_failed_collector_hides_what_needs_it_but_pages(
    hidden: list[Hidden], collector: Collector
) -> None:
    failed = f"MicrovmCollectorFailed {collector}"
    needing = {
        str(drift)
        for drift in _drift()
        if drift.severity != "critical" and collector in DRIFT[Kind(drift.labels["kind"])].sources
    }
    assert {str(each.target) for each in hidden if each.source.name == failed} == needing


def _drift() -> list[Alert]:
    return [alert for alert in alerts(HERE) if "kind" in alert.labels]
