"""A collector that fails or hangs costs its own reading and nothing else."""

from __future__ import annotations

import threading
import time

from host import eventually
from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Following
from microvm_exporter.worker import Worker

NOW = 1000.0


def soon() -> float:
    return time.monotonic() + 0.1


def late() -> float:
    return time.monotonic() + 30


class Idle:
    """A collector of which nothing is heard; the looks are the tests' own."""

    def __init__(self) -> None:
        self.following = Following(active=True, events=3)
        self.closed = False

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        self.closed = True


def make(collector: Idle | None = None) -> Worker[int]:
    return Worker("test", collector or Idle(), clock=lambda: NOW)


def test_reading_when_the_collector_succeeds() -> None:
    worker = make()
    worker.start(lambda: 7)
    reading = worker.finish(late())
    assert (reading.value, reading.error, reading.last_success) == (7, None, NOW)
    assert reading.following == Following(active=True, events=3)


def test_reading_when_the_collector_fails_keeps_the_last_success() -> None:
    def fail() -> int:
        raise CollectorError("no such file: /x")

    worker = make()
    worker.start(lambda: 7)
    worker.finish(late())
    worker.start(fail)
    reading = worker.finish(late())
    assert (reading.value, reading.error, reading.last_success) == (None, "no such file: /x", NOW)


def test_reading_when_the_collector_has_a_defect() -> None:
    worker = make()
    worker.start(lambda: 1 // 0)
    reading = worker.finish(late())
    assert reading.value is None
    assert reading.error == "unexpected ZeroDivisionError: integer division or modulo by zero"


def test_collector_that_hangs_is_unknown_and_not_called_again_before_it_comes_back() -> None:
    release = threading.Event()
    calls = []

    def hang() -> int:
        calls.append(1)
        release.wait(30)
        return 1

    worker = make()
    assert worker.start(hang)
    first = worker.finish(soon())
    assert not worker.start(hang)
    second = worker.finish(late())  # it let the others wait once
    assert (first.value, second.value, len(calls)) == (None, None, 1)
    assert first.error == second.error == "no answer after 0 s"  # since it was started
    assert worker.fileno() is None  # it would not take what is heard meanwhile
    release.set()
    eventually("it comes back", lambda: worker.finish(late()).value == 1)
    assert worker.fileno() == 7
    worker.start(lambda: 2)
    assert worker.finish(late()).value == 2


def test_time_without_an_answer_is_that_since_the_start() -> None:
    release = threading.Event()
    worker = make()
    worker.start(lambda: int(release.wait(30)))
    time.sleep(0.6)
    assert worker.finish(time.monotonic()).error == "no answer after 1 s"
    release.set()


def test_close_ends_the_thread_and_the_collector() -> None:
    before = threading.active_count()
    collector = Idle()
    worker = make(collector)
    assert threading.active_count() == before + 1
    worker.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert collector.closed
