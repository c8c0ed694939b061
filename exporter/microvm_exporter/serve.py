"""The service: a look whenever something changes, and every interval, until it is told to stop."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Final

from microvm_exporter import __version__
from microvm_exporter.activity import Tally
from microvm_exporter.config import ServeConfig
from microvm_exporter.drift import Judgement
from microvm_exporter.model import Cause
from microvm_exporter.news import News
from microvm_exporter.notify import Notifier
from microvm_exporter.observer import Observer
from microvm_exporter.publish import Publisher
from microvm_exporter.schedule import Schedule
from microvm_exporter.server import WebServer
from microvm_exporter.web import Board, make_app

__all__ = ["serve"]

_TURN: Final = 0.001
"""Seconds for which a thread may keep the interpreter from another."""

_GARBAGE: Final = 20_000
"""Objects that may be garbage before it is looked for: a first look at 1,000 VMs keeps 100,000."""

_M_ARENA_MAX: Final = -8  # mallopt(3)

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STOP_MAX: Final = 0.8

_log = logging.getLogger(__name__)


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises UsageError when an address cannot be listened on."""
    # A look is seconds of Python on a big host, and a scrape waits for its turn at the interpreter:
    # at 5 ms a turn, the default, the 95th percentile of a scrape was three times as high.
    sys.setswitchinterval(_TURN)
    # Python goes through all objects the more often the more there are, and here nearly all stay.
    gc.set_threshold(_GARBAGE)
    _share_heap()
    # Before any thread starts, because they inherit it: only the one that waits for the signals
    # gets them, and no handler interrupts another.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    stop = threading.Event()
    threading.Thread(target=_await_signal, args=(stop,), name="signals", daemon=True).start()
    notifier = Notifier.from_environ(os.environ)
    board = Board()
    server = WebServer(make_app(board, config.telemetry_path), config.listen_addresses)
    for address in server.start():
        _log.info("listening", extra={"address": address, "version": __version__})
    observer = Observer(config.sources, follow=True)
    refresher = _Refresher(config, observer, board, server, notifier, stop)
    # A daemon: a look that hangs must not hold up the stop.
    threading.Thread(target=refresher.run, name="refresh", daemon=True).start()
    stop.wait()
    notifier.stopping()
    _log.info("stopping")
    server.close()
    observer.close()


class _Refresher:
    """Looks, publishes, tells what is new, and waits for the next look."""

    def __init__(
        self,
        config: ServeConfig,
        observer: Observer,
        board: Board,
        server: WebServer,
        notifier: Notifier,
        stop: threading.Event,
    ) -> None:
        self._observer = observer
        self._board = board
        self._server = server
        self._notifier = notifier
        self._stop = stop
        self._publisher = Publisher(config.telemetry_path)
        self._schedule = Schedule(config.interval, config.resync_interval)
        self._activity = Tally()
        self._news = News(notifier)
        self._judgement: Judgement | None = None
        self._beaten = time.monotonic()

    def run(self) -> None:
        """Refresh whenever something was heard of and when it is time, until told to stop."""
        cause, heard_at = Cause.RESYNC, None
        while not self._stop.is_set():
            self._schedule.begin(cause)
            try:
                self._refresh(cause, heard_at)
            except Exception:
                # A defect in one look must not end the service: the age of the snapshot tells.
                _log.exception("could not refresh the snapshot")
            cause, heard_at = self._wait()

    def _refresh(self, cause: Cause, heard_at: float | None) -> None:
        judgement = self._observer.look(cause)
        if judgement is self._judgement:
            return  # what was heard of was nothing to us
        self._judgement = judgement
        self._activity.count(cause)
        self._board.publish(self._publisher.publish(judgement, self._activity.now()))
        if heard_at is not None:
            self._activity.observe(time.monotonic() - heard_at)
        self._news.take(judgement)
        if cause is Cause.RESYNC:
            _give_back()

    def _wait(self) -> tuple[Cause, float | None]:
        """Wait for the next look to be due; give its cause, and when that event was heard of."""
        while not self._stop.is_set():
            if (cause := self._schedule.due()) is not None:
                return cause, None
            left = min(self._schedule.left(), self._beat(), self._news.tell())
            if self._observer.wait(left):
                heard_at = time.monotonic()
                self._stop.wait(self._schedule.pause())
                return self._schedule.due() or Cause.EVENT, heard_at
        return Cause.INTERVAL, None

    def _beat(self) -> float:
        """Tell the watchdog that all is well, this thread and the server's; give the time to wait.

        Not more often than it expects: an event may come four times a second.
        """
        interval = self._notifier.watchdog_interval or float("inf")
        left = self._beaten + interval - time.monotonic()
        if left > 0:
            return left
        if self._server.alive:
            self._notifier.watchdog()
        self._beaten = time.monotonic()
        return interval


def _share_heap() -> None:
    """Have all threads allocate from one heap: glibc gives each its own, which costs 4 MB here."""
    with suppress(AttributeError):  # another C library has no such thing
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _give_back() -> None:
    """Give back the memory that a burst of signals took, which glibc would keep."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _await_signal(stop: threading.Event) -> None:
    signal.sigwait(_STOP_SIGNALS)
    stop.set()
    # Whatever hangs, the reader of the log included: the process ends within a second.
    time.sleep(_STOP_MAX)
    os._exit(0)
