"""When a change counts as missed."""

from __future__ import annotations

from microvm_exporter.collectors.missed import Missed


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_count_when_no_event_comes() -> None:
    clock = Clock()
    missed: Missed[str] = Missed(clock)
    missed.suspect(["a", "b"])
    assert missed.count() == 0
    clock.now += 1.9
    missed.suspect(["a", "c"])
    missed.acquit(["b"])
    clock.now += 0.2
    assert missed.count() == 1  # a, suspected first
    clock.now += 2.0
    assert missed.count() == 2  # c
    assert missed.count() == 2


def test_count_when_events_were_lost() -> None:
    clock = Clock()
    missed: Missed[str] = Missed(clock)
    missed.suspect(["a"])
    missed.clear()
    clock.now += 5.0
    assert missed.count() == 0
