"""The service: a look every interval, served in between, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Final

from microvm_exporter import __version__
from microvm_exporter.config import ServeConfig
from microvm_exporter.drift import Judgement, Kind
from microvm_exporter.model import Collector
from microvm_exporter.notify import Notifier
from microvm_exporter.observer import Observer
from microvm_exporter.publish import publish
from microvm_exporter.report import headline
from microvm_exporter.server import WebServer
from microvm_exporter.web import Board, make_app

__all__ = ["serve"]

_TURN: Final = 0.001
"""Seconds for which a thread may keep the interpreter from another."""

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STOP_MAX: Final = 0.8

_log = logging.getLogger(__name__)


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises UsageError when an address cannot be listened on."""
    # A look is seconds of Python on a big host, and a scrape waits for its turn at the interpreter:
    # at 5 ms a turn, the default, the 95th percentile of a scrape was three times as high.
    sys.setswitchinterval(_TURN)
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
    observer = Observer(config.sources)
    refresher = _Refresher(config, observer, board, server, notifier, stop)
    # A daemon: a look that hangs must not hold up the stop.
    threading.Thread(target=refresher.run, name="refresh", daemon=True).start()
    stop.wait()
    notifier.stopping()
    _log.info("stopping")
    server.close()
    observer.close()


class _Refresher:
    """Looks, publishes, and tells systemd and the log what changed."""

    def __init__(
        self,
        config: ServeConfig,
        observer: Observer,
        board: Board,
        server: WebServer,
        notifier: Notifier,
        stop: threading.Event,
    ) -> None:
        self._config = config
        self._observer = observer
        self._board = board
        self._server = server
        self._notifier = notifier
        self._stop = stop
        self._errors: dict[Collector, str | None] = dict.fromkeys(Collector)
        self._findings: frozenset[tuple[Kind, str, str]] = frozenset()
        self._ready = False

    def run(self) -> None:
        """Refresh every interval until told to stop."""
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                self._refresh()
            except Exception:
                # A defect in one look must not end the service: the age of the snapshot tells.
                _log.exception("could not refresh the snapshot")
            due = max(due + self._config.interval, time.monotonic())
            self._sleep_until(due)

    def _refresh(self) -> None:
        judgement = self._observer.look()
        self._board.publish(publish(judgement, self._config.telemetry_path))
        self._log_collectors(judgement)
        self._log_findings(judgement)
        if self._ready:
            self._notifier.status(headline(judgement))
        else:
            self._notifier.ready(headline(judgement))
            self._ready = True

    def _sleep_until(self, due: float) -> None:
        """Sleep, and tell the watchdog meanwhile that all is well: this thread and the server's."""
        beat = self._notifier.watchdog_interval or float("inf")
        while not self._stop.is_set() and (left := due - time.monotonic()) > 0:
            if self._server.alive:
                self._notifier.watchdog()
            self._stop.wait(min(left, beat))

    def _log_collectors(self, judgement: Judgement) -> None:
        for name in Collector:
            error = judgement.snapshot.readings()[name].error
            if error == self._errors[name]:
                continue
            if error is None:
                _log.info("collector works again", extra={"collector": name})
            else:
                _log.error("collector failed", extra={"collector": name, "error": error})
            self._errors[name] = error

    def _log_findings(self, judgement: Judgement) -> None:
        findings = frozenset((f.kind, f.vm, f.object) for f in judgement.findings)
        new, gone = findings - self._findings, self._findings - findings
        if new or gone:
            counts = {"new": len(new), "gone": len(gone), "findings": len(findings)}
            _log.info("findings changed", extra=counts)
        for kind, vm, thing in sorted(new):
            _log.debug("found", extra={"kind": kind, "vm": vm, "object": thing})
        self._findings = findings


def _await_signal(stop: threading.Event) -> None:
    signal.sigwait(_STOP_SIGNALS)
    stop.set()
    # Whatever hangs, the reader of the log included: the process ends within a second.
    time.sleep(_STOP_MAX)
    os._exit(0)
