"""What the log and systemd are told, and how often."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from microvm_exporter.drift import Judgement
from microvm_exporter.model import Collector
from microvm_exporter.news import News
from microvm_exporter.notify import Notifier
from world import healthy_world

CLEAN = "No drift: what is there is what is declared."
ONE = "1 finding: 1 warning."
TWO = "2 findings: 2 warning."


class Heard:
    """What the log and systemd were told since last asked, and the clock that News goes by."""

    def __init__(self, manager: socket.socket, log: pytest.LogCaptureFixture) -> None:
        self.now = 1000.0
        self._manager = manager
        self._log = log

    def log(self) -> list[tuple[str, ...]]:
        """Each record as its message and the values of its fields."""
        names = ("collector", "error", "new", "gone", "findings")
        told = [
            (record.message, *(str(vars(record)[name]) for name in names if name in vars(record)))
            for record in self._log.records
        ]
        self._log.clear()
        return told

    def manager(self) -> list[str]:
        """Each datagram."""
        told = []
        try:
            while True:
                told.append(self._manager.recv(4096).decode())
        except BlockingIOError:
            return told


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        yield end


@pytest.fixture
def heard(manager: socket.socket, caplog: pytest.LogCaptureFixture) -> Heard:
    caplog.set_level(logging.INFO, "microvm_exporter")
    return Heard(manager, caplog)


@pytest.fixture
def news(manager: socket.socket, heard: Heard) -> News:
    return News(Notifier(manager.getsockname()), clock=lambda: heard.now)


def leaking(*taps: str) -> Judgement:
    """A host on which these TAPs are strays."""
    world = healthy_world()
    for tap in taps:
        world.link(tap)
    return world.judge()


def test_the_first_look_is_told_at_once(news: News, heard: Heard) -> None:
    news.take(healthy_world().judge())
    assert heard.manager() == [f"READY=1\nSTATUS={CLEAN}"]
    assert heard.log() == []
    assert news.tell() == math.inf


def test_findings_that_come_and_go_are_told_now_and_then_and_none_is_lost(
    news: News, heard: Heard
) -> None:
    clean, one, two = leaking(), leaking("a"), leaking("a", "b")
    news.take(one)
    assert heard.log() == [("findings changed", "1", "0", "1")]
    for _ in range(3):
        heard.now += 1.0
        news.take(two)
        news.take(clean)
    assert heard.log() == []
    assert heard.manager() == [f"READY=1\nSTATUS={ONE}"]
    assert news.tell() == 7.0
    heard.now += 7.0
    assert news.tell() == math.inf
    assert heard.log() == [("findings changed", "5", "6", "0")]
    assert heard.manager() == [f"STATUS={CLEAN}"]
    heard.now += 10.0
    news.take(two)
    assert heard.log() == [("findings changed", "2", "0", "2")]
    assert heard.manager() == [f"STATUS={TWO}"]


def test_source_that_fails_is_told_at_once_and_once(news: News, heard: Heard) -> None:
    broken = healthy_world()
    broken.unread[Collector.LINKS] = "no netlink"
    for world in (healthy_world(), broken, broken, healthy_world()):
        news.take(world.judge())
    assert heard.log() == [
        ("collector failed", "links", "no netlink"),
        ("collector works again", "links"),
    ]
