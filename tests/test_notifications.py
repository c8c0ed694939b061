"""What people read: the shipped templates, rendered by a live Alertmanager, and who gets it.

Labels and annotations of the alerts are those that `alerts/tests` hold the rules to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus

import pytest
import yaml

from golden import assert_golden
from host.alertmanager import Alertmanager
from host.examples import ALERTS, alertmanager
from host.inbox import Inbox, Notification
from host.machine import eventually
from host.mailbox import mailbox
from host.webhook import webhook
from tools import tool

SINCE, UNTIL = "2026-03-01 03:12 UTC", "2026-03-01 04:05 UTC"
"""What stands in the golden files for the times of a run."""
HOSTILE = "<!channel> @all *&*\n<http://evil.example|runbook>"


def of_rules(name: str, host: str, vm: str = "web") -> dict[str, Any]:
    """An alert of a shipped rule, as Prometheus tells it, on a host and of a MicroVM."""
    document = yaml.safe_load((ALERTS / "tests" / f"{name}.yml").read_text())
    found = next(
        alert
        for test in document["tests"]
        for at in test["alert_rule_test"]
        for alert in at["exp_alerts"]
    )

    def placed(text: str, vm: str) -> str:
        return text.replace("host1", host).replace("web", vm)

    labels = {key: placed(text, vm) for key, text in found["exp_labels"].items()}
    annotations = {
        key: placed(text, quote_plus(vm) if key == "dashboard_url" else vm)
        for key, text in found.get("exp_annotations", {}).items()
    }
    return {"labels": {"alertname": name, **labels}, "annotations": annotations}


def _of_a_shard(name: str) -> dict[str, Any]:
    """The same about a whole job, from one of several Prometheus that share the hosts."""
    alert = of_rules(name, "")
    return {**alert, "labels": {**alert["labels"], "shard": "1"}}


class Scenario(NamedTuple):
    """Alerts of one group, the first ``ends`` of which end later; ``mark`` is in the titles."""

    receiver: str
    mark: str
    alerts: tuple[dict[str, Any], ...]
    ends: int


SCENARIOS: Mapping[str, Scenario] = {
    "a-warning": Scenario("chat", "vmhost1", (of_rules("MicrovmUndeclaredRunning", "vmhost1"),), 1),
    "a-page": Scenario("page", "vmhost1", (of_rules("MicrovmNotRunning", "vmhost1"),), 1),
    "a-page-of-two": Scenario(
        "page",
        "vmhost2",
        (
            of_rules("MicrovmMissingInterface", "vmhost2"),
            of_rules("MicrovmNotRunning", "vmhost2", "db"),
        ),
        1,
    ),
    "the-exporter-hides-the-rest": Scenario(
        "chat",
        "vmhost3",
        (
            of_rules("MicrovmExporterDown", "vmhost3"),
            of_rules("MicrovmUndeclaredRunning", "vmhost3"),
        ),
        1,
    ),
    "many-warnings": Scenario(
        "chat",
        "vmhost4",
        tuple(of_rules("MicrovmUnitFailed", "vmhost4", f"vm{n:02}") for n in range(40)),
        34,
    ),
    "many-pages": Scenario(
        "page",
        "vmhost9",
        tuple(of_rules("MicrovmNotRunning", "vmhost9", f"vm{n:02}") for n in range(32)),
        32,
    ),
    "the-fleet": Scenario("page", "Many hosts", (of_rules("MicrovmFleetDegraded", "vmhost5"),), 1),
    "a-shard-without-hosts": Scenario(
        "page", "No host", (_of_a_shard("MicrovmExporterAbsent"),), 1
    ),
    "a-name-that-a-guest-chose": Scenario(
        "chat", "vmhost6", (of_rules("MicrovmUndeclaredRunning", "vmhost6", HOSTILE),), 1
    ),
    "not-ours": Scenario(
        "chat",
        "NodeClockSkew",
        ({"labels": {"alertname": "NodeClockSkew", "job": "node", "instance": "nas:9100"}},),
        1,
    ),
    "the-digest": Scenario(
        "digest",
        "",
        (
            of_rules("MicrovmUndeclaredState", "vmhost7"),
            of_rules("MicrovmUndeclaredState", "vmhost8", "old"),
            of_rules("MicrovmRestartPending", "vmhost8", "dns"),
        ),
        1,
    ),
}


class _Varying(NamedTuple):
    """What is another in each run: Alertmanager's URL, when alerts began, and when they ended."""

    url: str
    begun: tuple[datetime, ...]
    ended: datetime

    def taken_from(self, text: str) -> str:
        text = text.replace(self.url, "http://alertmanager.example")
        text = text.replace(f"resolved {_minute(self.ended)}", f"resolved {UNTIL}")
        for begun in self.begun:
            text = text.replace(_minute(begun), SINCE)
        return text


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


class Told(NamedTuple):
    """What came of each scenario at its begin and at its end, and all that came."""

    begin: Mapping[str, Notification]
    end: Mapping[str, Notification]
    inbox: Inbox
    varying: _Varying


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """All scenarios at once."""
    tool("prometheus-alertmanager")
    inbox = Inbox()
    folder: Path = tmp_path_factory.mktemp("secrets")
    with (
        webhook(inbox) as url,
        mailbox(inbox) as smarthost,
        Alertmanager(json.dumps(alertmanager(folder, url, smarthost))) as running,
    ):
        every = [alert for each in SCENARIOS.values() for alert in each.alerts]
        # Alertmanager does not wait for the rest of a group that began longer ago than group_wait.
        begun = datetime.now(UTC) + timedelta(minutes=1)
        running.fire(*({**alert, "startsAt": begun.isoformat()} for alert in every))
        running.fire({"labels": {"alertname": "MicrovmWatchdog", "severity": "none"}})
        begin = {name: _wait(inbox, each, "") for name, each in SCENARIOS.items()}
        over = [alert for each in SCENARIOS.values() for alert in each.alerts[: each.ends]]
        ended = datetime.now(UTC)
        earlier = ended - timedelta(hours=3)
        times = {"startsAt": earlier.isoformat(), "endsAt": ended.isoformat()}
        running.fire(*({**alert, **times} for alert in over))
        end = {
            name: _wait(inbox, each, "resolved")
            for name, each in SCENARIOS.items()
            if each.receiver != "digest"
        }
        pings = inbox.of("watchdog")
        eventually("a second ping", lambda: len(inbox.of("watchdog")) > len(pings))
        assert running.log == ""
    return Told(begin, end, inbox, _Varying(running.url, (begun, earlier), ended))


def _wait(inbox: Inbox, scenario: Scenario, word: str) -> Notification:
    return inbox.wait_for(
        f"{scenario.receiver} {scenario.mark} {word}",
        lambda each: (
            each.receiver == scenario.receiver
            and scenario.mark in each.title
            and word in each.title + each.text
        ),
    )


def _shown(notification: Notification) -> str:
    extra = "".join(
        f"{name}: {value}\n"
        for name, value in notification.extra.items()
        if name not in ("raw", "incident")
    )
    return f"{notification.title}\n{extra}\n{notification.text}\n"


@pytest.mark.parametrize("name", SCENARIOS)
def test_text(told: Told, name: str) -> None:
    text = _shown(told.begin[name])
    if name in told.end:
        text += f"{'=' * 30} later\n{_shown(told.end[name])}"
    assert_golden(f"notifications/{name}.txt", told.varying.taken_from(text))


def test_one_notification_a_host(told: Told) -> None:
    for name, scenario in SCENARIOS.items():
        came = [each for each in told.inbox.of(scenario.receiver) if scenario.mark in each.title]
        assert came == [told.begin[name], *([told.end[name]] if name in told.end else [])]


def test_resolved_when_nothing_is_left(told: Told) -> None:
    over = {name for name in told.end if SCENARIOS[name].ends == len(SCENARIOS[name].alerts)}
    assert {name for name, each in told.end.items() if each.resolved} == over
    assert over == told.end.keys() - {
        "a-page-of-two",
        "many-warnings",
        "the-exporter-hides-the-rest",
    }


def test_pager_has_one_incident_a_host(told: Told) -> None:
    pages = [name for name, scenario in SCENARIOS.items() if scenario.receiver == "page"]
    begun = [told.begin[name].extra["incident"] for name in pages]
    assert [told.end[name].extra["incident"] for name in pages] == begun
    assert len(set(begun)) == len(pages)


def test_names_mention_nobody_and_link_nowhere_in_the_chat(told: Told) -> None:
    for each in (told.begin, told.end):
        raw = each["a-name-that-a-guest-chose"].extra["raw"]
        assert "&lt;!channel&gt; @\u200ball" in raw
        assert "<!" not in raw
        assert "@all" not in re.sub("(?s)```.*?```", "", raw), "in code nobody is mentioned"
        assert "<http://evil" not in raw


def test_watchdog_is_heard_again_and_again(told: Told) -> None:
    assert {(each.title, each.resolved) for each in told.inbox.of("watchdog")} == {
        ("MicrovmWatchdog", False)
    }
