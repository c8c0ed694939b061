"""When looks are due, by a clock of the test's own."""

from __future__ import annotations

from microvm_exporter.model import Cause
from microvm_exporter.schedule import Schedule


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def start(clock: Clock) -> Schedule:
    """One that looks every 15 s and at everything every minute, after the first look."""
    schedule = Schedule(15.0, 60.0, clock)
    assert schedule.due() is Cause.RESYNC
    schedule.begin(Cause.RESYNC)
    return schedule


def test_interval_and_resync_when_nothing_is_heard() -> None:
    clock = Clock()
    schedule = start(clock)
    causes = []
    for _ in range(9):
        clock.now += schedule.left()
        cause = schedule.due()
        assert cause is not None
        causes.append((clock.now - 1000.0, cause))
        schedule.begin(cause)
    assert [at for at, _ in causes] == [15.0 * n for n in range(1, 10)]
    assert [n for n, (_, cause) in enumerate(causes, 1) if cause is Cause.RESYNC] == [4, 8]


def test_events_do_not_put_off_what_is_due_by_time() -> None:
    clock = Clock()
    schedule = start(clock)
    for _ in range(14):
        clock.now += 1.0
        assert schedule.due() is None
        schedule.begin(Cause.EVENT)
    clock.now += 1.0
    assert schedule.due() is Cause.INTERVAL


def test_pause_folds_what_comes_together_and_keeps_looks_apart() -> None:
    clock = Clock()
    schedule = start(clock)
    clock.now += 5.0
    assert schedule.pause() == 0.1
    schedule.begin(Cause.EVENT)
    clock.now += 0.05  # the look took that long
    assert round(schedule.pause(), 6) == 0.2
    clock.now += schedule.pause()
    assert schedule.pause() == 0.1


def test_look_that_comes_late_puts_off_the_next() -> None:
    clock = Clock()
    schedule = start(clock)
    clock.now += 15.0
    schedule.begin(Cause.INTERVAL)
    clock.now += 100.0
    assert schedule.due() is Cause.RESYNC
    schedule.begin(Cause.RESYNC)
    assert schedule.due() is None
    assert schedule.left() == 15.0
