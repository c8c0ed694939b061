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
from typing import Generic, TypeVar

from microvm_exporter.errors import CollectorError
from microvm_exporter.model import Reading

__all__ = ["Worker"]

T = TypeVar("T")


class Worker(Generic[T]):
    """A daemon thread that takes one job at a time.

    ``clock`` gives Unix seconds, for ``Reading.last_success``.
    """

    def __init__(self, name: str, *, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job[T] | None] = queue.SimpleQueue()
        self._running: _Job[T] | None = None
        self._last_success: float | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def start(self, call: Callable[[], T]) -> None:
        """Begin a job, unless the last one has not come back yet."""
        if self._running is None or self._running.done.is_set():
            self._running = _Job(call)
            self._jobs.put(self._running)

    def finish(self, deadline: float) -> Reading[T]:
        """Wait until ``deadline`` (monotonic seconds) for the job, and give what came of it."""
        job = self._running
        if job is None:
            raise RuntimeError(f"{self._name} was not started")
        if not job.done.wait(max(0.0, deadline - time.monotonic())):
            elapsed = time.monotonic() - job.started
            error = f"no answer after {elapsed:.0f} s; it is not asked again before it answers"
            return Reading(None, error, elapsed, self._last_success)
        if job.error is None:
            self._last_success = self._clock()
        return Reading(job.value, job.error, job.duration, self._last_success)

    def close(self) -> None:
        """Let the thread end after the job it has."""
        self._jobs.put(None)

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
