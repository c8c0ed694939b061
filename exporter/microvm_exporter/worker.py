"""Run one collector in a thread of its own, with a deadline.

A collector that hangs (a dead network file system, a bus that accepts and never answers) costs its
own reading and nothing else: the caller goes on without it, and it is not called again before it
has come back.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Generic, Protocol, TypeVar

from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Following, Reading

__all__ = ["Follower", "Worker"]

T = TypeVar("T")


_SLOW: Final = 2.0
"""Seconds after which a failure was a wait for an answer that did not come."""

_PATIENCE_WITH_SLOW: Final = 0.2
"""Seconds that the others wait for a collector that failed so the last time."""


class Follower(Protocol):
    """What all collectors have in common beside their looks."""

    @property
    def following(self) -> Following:
        """How it hears of changes."""

    def fileno(self) -> int | None:
        """Give a descriptor that is readable once there is something to look at."""

    def close(self) -> None:
        """Give back what it holds."""


class Worker(Generic[T]):
    """A daemon thread that does the looks of one collector, one at a time.

    ``clock`` gives Unix seconds, for ``Reading.last_success``.
    """

    def __init__(self, name: str, collector: Follower, *, clock: Callable[[], float]) -> None:
        self._name = name
        self._collector = collector
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job[T] | None] = queue.SimpleQueue()
        self._job: _Job[T] | None = None
        self._last_success: float | None = None
        self._hung: str | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def start(self, call: Callable[[], T]) -> bool:
        """Begin a job, unless there is one whose outcome nobody has seen yet; tell whether."""
        if self._job is not None:
            return False
        self._job = _Job(call)
        self._jobs.put(self._job)
        return True

    def finish(self, deadline: float) -> Reading[T]:
        """Wait until ``deadline`` (monotonic seconds) for the job, and give what came of it.

        A collector that let the others wait is not waited for again, until it has come back.
        """
        return replace(self._finish(deadline), following=self._collector.following)

    def fileno(self) -> int | None:
        """Give what to wait for: nothing while it is busy, and would not take what there is."""
        return self._collector.fileno() if self._job is None else None

    def close(self) -> None:
        """Let the thread end after the job it has, and have the collector end that."""
        self._jobs.put(None)
        self._collector.close()

    def _finish(self, deadline: float) -> Reading[T]:
        job = self._job
        if job is None:
            raise RuntimeError(f"{self._name} was not started")
        patience = max(0.0, deadline - time.monotonic())
        if self._hung is not None:
            patience = min(patience, _PATIENCE_WITH_SLOW)
        if not job.done.wait(patience):
            waited = time.monotonic() - job.started
            self._hung = self._hung or f"no answer after {waited:.0f} s"
            return Reading(None, self._hung, waited, self._last_success)
        self._job = None
        if job.error is None:
            self._last_success = self._clock()
        self._hung = job.error if job.duration > _SLOW else None
        return Reading(job.value, job.error, job.duration, self._last_success)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()


class _Job(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.started = time.monotonic()
        self.done = threading.Event()
        self.duration = 0.0
        self.value: T | None = None
        self.error: str | None = None

    def run(self) -> None:
        try:
            self.value = self._call()
        except CollectorError as error:
            self.error = str(error)
        except Exception as error:  # a defect of one collector must not end the others
            self.error = f"unexpected {type(error).__name__}: {error}"
        self.duration = time.monotonic() - self.started
        self.done.set()
