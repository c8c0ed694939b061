"""Automatic restarts that systemd forgets: what it told, as measured on systemd 257."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from microvm_exporter.collectors import units
from microvm_exporter.model import Template, Unit

Told = tuple[str, str, bool, dict[str, int]]
"""Active and sub state, whether it has a job, and properties. Times are in seconds here."""

RUNS: Told = ("active", "running", False, {"ActiveEnterTimestamp": 10, "NRestarts": 0})
ENDS: Told = ("failed", "failed-before-auto-restart", False, {"NRestarts": 0})
WAITS: Told = ("activating", "auto-restart", False, {"InactiveExitTimestamp": 20, "NRestarts": 0})
IS_DUE: Told = ("activating", "auto-restart", True, {"InactiveExitTimestamp": 20, "NRestarts": 1})
IS_STOPPED: Told = ("inactive", "dead", True, {"NRestarts": 1})
STARTS: Told = ("activating", "start-post", True, {"ActiveEnterTimestamp": 10, "NRestarts": 0})
RUNS_AGAIN: Told = ("active", "running", False, {"ActiveEnterTimestamp": 30, "NRestarts": 0})
WAITS_AGAIN: Told = (
    *("activating", "auto-restart", False),
    {"InactiveExitTimestamp": 40, "NRestarts": 0},
)
IS_DOWN: Told = ("inactive", "dead", False, {"NRestarts": 0})
ALL = (RUNS, ENDS, WAITS, IS_DUE, IS_STOPPED, STARTS)


def restarts(told: Iterable[Told], *, forgets: bool = True) -> int:
    known: Unit | None = None
    for active_state, sub_state, job, properties in told:
        unit = Unit(
            *("microvm@web.service", Template.MICROVM, "web", "loaded"),
            *(active_state, sub_state, job),
        )
        answers: dict[str, Any] = {"ActiveEnterTimestamp": 10_000_000}
        for name, value in properties.items():
            answers[name] = value * 1_000_000 if name.endswith("Timestamp") else value
        known = units.complete(unit, known, answers, forgets=forgets)
    assert known
    return known.restarts


@pytest.mark.parametrize(
    "seen",
    [
        ALL,
        (RUNS, WAITS),
        (RUNS, WAITS, IS_DUE),
        (RUNS, WAITS, IS_STOPPED),
        (RUNS, ENDS, WAITS),
        (RUNS, WAITS, IS_DUE, IS_STOPPED, STARTS),
    ],
)
@pytest.mark.parametrize("then", [RUNS_AGAIN, WAITS_AGAIN], ids=["runs", "waits"])
def test_restart_is_counted_once_whatever_was_seen_of_it(
    seen: tuple[Told, ...], then: Told
) -> None:
    assert restarts((*seen, then)) == 1


def test_restart_under_way_is_not_counted_yet() -> None:
    assert restarts((RUNS, WAITS)) == 0
    assert restarts((RUNS, WAITS, IS_DUE, IS_STOPPED)) == 0


def test_loop_is_counted_on() -> None:
    waits = [
        ("activating", "auto-restart", False, {"InactiveExitTimestamp": at, "NRestarts": 0})
        for at in range(20, 70, 10)
    ]
    assert restarts([RUNS, *waits]) == 4
    assert restarts([RUNS, *waits, RUNS_AGAIN, RUNS_AGAIN]) == 5


def test_count_of_systemd_goes_first_where_it_is_higher() -> None:
    later = ("active", "running", False, {"ActiveEnterTimestamp": 30, "NRestarts": 7})
    assert restarts((RUNS, WAITS, later)) == 7


def test_count_begins_anew_after_a_stop() -> None:
    assert restarts((*ALL, RUNS_AGAIN, IS_DOWN)) == 0
    assert restarts((*ALL, RUNS_AGAIN, IS_DOWN, RUNS)) == 0


def test_systemd_that_forgets_none_is_believed() -> None:
    assert restarts((*ALL, RUNS_AGAIN), forgets=False) == 0


@pytest.mark.parametrize(
    ("version", "forgets"),
    [
        ("252 (252.39-1~deb12u1)", False),
        ("257 (257.13-1~deb13u1)", True),
        ("257.13", True),
        ("258.1", True),
        ("", False),
        ("v257", False),
    ],
)
def test_version_tells_whether_it_may_forget(version: str, forgets: bool) -> None:
    assert units.forgets_restarts(version) is forgets
