"""What is printed for a snapshot: metrics, reports and page, against files and by parsing it."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from golden import assert_golden
from microvm_exporter import __version__
from microvm_exporter.activity import Activity, Delays
from microvm_exporter.drift import Judgement
from microvm_exporter.exposition import Renderer
from microvm_exporter.metrics import METRICS
from microvm_exporter.model import Cause, Collector, Following
from microvm_exporter.page import render_page
from microvm_exporter.report import Status, render_json, render_text, status_of
from microvm_exporter.samples import View
from test_drift import DRIFT
from world import World, healthy_world

SPOILS = {name: spoil for name, spoil, _ in DRIFT}
ACTIVITY = Activity(
    {Cause.EVENT: 40, Cause.INTERVAL: 7, Cause.RESYNC: 2},
    Delays(within=(38, 39), count=40, total=6.5),
)
HOSTILE = 'a"b\\c\nd\x1b[31m\udcff</p>'


def _drifted() -> World:
    world = healthy_world()
    for name in ("removed firewall", "runner without microvm-run", "leaked TAP", "outdated"):
        SPOILS[name](world)
    return world


def _unknown() -> World:
    world = _drifted()
    world.unread[Collector.SYSTEMD] = "no system bus at unix:path=/run/dbus/system_bus_socket"
    return world


def _empty() -> World:
    return World(templates={})


WORLDS: dict[str, Callable[[], World]] = {
    "healthy": healthy_world,
    "drifted": _drifted,
    "unknown": _unknown,
    "empty": _empty,
}


def render(judgement: Judgement) -> tuple[bytes, bytes]:
    return Renderer().render(View(judgement, ACTIVITY))


def own_metrics(text: str) -> str:
    """The metrics without the process's own, and with the versions left open."""
    lines = [line for line in text.splitlines() if "process_" not in line]
    text = "\n".join(lines) + "\n"
    return text.replace(__version__, "VERSION").replace(platform.python_version(), "PYTHON")


@pytest.mark.parametrize("name", WORLDS)
def test_metrics_when_rendered(name: str) -> None:
    text, _ = render(WORLDS[name]().judge())
    assert_golden(f"{name}/metrics.prom", own_metrics(text.decode()))


@pytest.mark.parametrize("name", WORLDS)
def test_report_when_rendered(name: str) -> None:
    judgement = WORLDS[name]().judge()
    assert_golden(f"{name}/report.txt", render_text(judgement, colour=False))
    assert_golden(f"{name}/report.json", render_json(judgement))


def test_status_when_drift_and_unknown() -> None:
    assert [status_of(make().judge()) for make in WORLDS.values()] == [
        Status.CLEAN,
        Status.DRIFT,
        Status.UNKNOWN,
        Status.CLEAN,
    ]


def test_colour_when_asked_for_changes_nothing_but_colour() -> None:
    judgement = _drifted().judge()
    coloured = render_text(judgement, colour=True)
    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text(judgement, colour=False)


@pytest.mark.parametrize("name", WORLDS)
def test_formats_hold_the_same_samples(name: str) -> None:
    text, openmetrics = (body.decode() for body in render(WORLDS[name]().judge()))
    assert _samples(parse_text(text)) == _samples(parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]


def test_metrics_are_declared_once_and_all_used() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    cut = healthy_world()
    cut.units_left_out = 1
    text = "".join(render(world.judge())[0].decode() for world in (_drifted(), cut))
    assert [name for name in names if f"\n{name}" not in text] == []


def test_hostile_names_when_rendered() -> None:
    world = _drifted()
    world.link(HOSTILE)
    judgement = world.judge()
    text, openmetrics = (body.decode() for body in render(judgement))
    parsed = {label for _, labels, _ in _samples(parse_text(text)) for _, label in labels}
    assert 'a"b\\c\nd\x1b[31m\\udcff</p>' in parsed
    assert _samples(parse_text(text)) == _samples(parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
    report = render_text(judgement, colour=False)
    assert [c for c in report if not c.isprintable() and c != "\n"] == []
    assert "ip link delete dev $'a\"b\\x5cc\\x0ad\\x1b[31m\\xff</p>'" in report
    assert json.loads(render_json(judgement))["status"] == "drift"
    page = render_page(judgement, "/metrics")
    assert page.count("</p>") == len(judgement.findings) + 1
    assert "&lt;/p&gt;" in page


def test_page_when_there_is_more_than_a_page_can_hold() -> None:
    world = healthy_world()
    for number in range(500):
        world.link(f"leak{number}")
    page = render_page(world.judge(), "/metrics")
    assert page.count("stray_tap") == 200
    assert "and 300 more" in page


def test_page_says_what_could_not_be_read() -> None:
    page = render_page(_unknown().judge(), "/metrics")
    assert "could not read systemd" in page
    assert "<dd>unknown</dd>" in page


def test_page_says_what_is_followed() -> None:
    says = {
        (): "looks at declaration, systemd, links, state each interval",
        ("links", "systemd"): "follows systemd, links; looks at declaration, state each interval",
        tuple(Collector): "follows declaration, systemd, links, state",
    }
    for names, text in says.items():
        judgement = _following({Collector(name): Following(active=True) for name in names})
        assert f" · {text}</p>" in render_page(judgement, "/metrics")


# -------------------------------------------------------------------------------- the exporter


def _following(heard: Mapping[Collector, Following]) -> Judgement:
    judgement = healthy_world().judge()
    readings: dict[str, Any] = {
        name: replace(reading, following=heard.get(name, Following()))
        for name, reading in judgement.snapshot.readings().items()
    }
    snapshot = replace(judgement.snapshot, **readings)
    return replace(judgement, snapshot=snapshot)


def test_self_observation_when_links_have_lost_events() -> None:
    heard = {
        Collector.SYSTEMD: Following(active=True, events=12, missed=1),
        Collector.LINKS: Following(active=False, events=3, missed=2),
        Collector.STATE: Following(active=True),
    }
    text, openmetrics = (body.decode() for body in render(_following(heard)))
    shown = re.compile(r"microvm_exporter_(collector_following|events|missed|refreshes|event_to)")
    lines = [line for line in text.splitlines() if shown.match(line)]
    assert lines == SELF_OBSERVATION.strip().splitlines()
    assert set(lines) <= set(openmetrics.splitlines())
    assert "_created" not in text + openmetrics


SELF_OBSERVATION = """
microvm_exporter_collector_following{collector="declaration"} 0.0
microvm_exporter_collector_following{collector="systemd"} 1.0
microvm_exporter_collector_following{collector="links"} 0.0
microvm_exporter_collector_following{collector="state"} 1.0
microvm_exporter_events_total{collector="declaration"} 0.0
microvm_exporter_events_total{collector="systemd"} 12.0
microvm_exporter_events_total{collector="links"} 3.0
microvm_exporter_events_total{collector="state"} 0.0
microvm_exporter_missed_changes_total 3.0
microvm_exporter_refreshes_total{cause="event"} 40.0
microvm_exporter_refreshes_total{cause="interval"} 7.0
microvm_exporter_refreshes_total{cause="resync"} 2.0
microvm_exporter_event_to_publish_seconds_bucket{le="0.25"} 38.0
microvm_exporter_event_to_publish_seconds_bucket{le="1.0"} 39.0
microvm_exporter_event_to_publish_seconds_bucket{le="+Inf"} 40.0
microvm_exporter_event_to_publish_seconds_count 40.0
microvm_exporter_event_to_publish_seconds_sum 6.5
"""


def test_left_out_objects_are_only_there_when_there_are_any() -> None:
    world = healthy_world()
    world.units_left_out = 3
    lines = [
        [line for line in render(w.judge())[0].decode().splitlines() if "left_out_objects{" in line]
        for w in (healthy_world(), world)
    ]
    left_out = 'microvm_exporter_left_out_objects{collector="systemd",reason="limit"} 3.0'
    assert lines == [[], [left_out]]


def _samples(families: Iterable[Metric]) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    return sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
        if not sample.name.startswith("process_")
    )
