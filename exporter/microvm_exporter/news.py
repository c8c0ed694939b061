"""What the log and systemd are told of the looks: what could not be read, and what was found."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from microvm_exporter.drift import Judgement
from microvm_exporter.drift.kinds import Key
from microvm_exporter.model import Collector
from microvm_exporter.notify import Notifier
from microvm_exporter.report import headline

__all__ = ["News"]

_APART: Final = 10.0
"""Seconds at least between two times that findings are told of: they may change at each look."""

_log = logging.getLogger(__name__)


class News:
    """Tells what is new since it last told. For one thread at a time.

    What came and went in between is added up, so nothing is lost. ``clock`` gives monotonic
    seconds.
    """

    def __init__(self, notifier: Notifier, clock: Callable[[], float] = time.monotonic) -> None:
        self._notifier = notifier
        self._clock = clock
        self._errors: dict[Collector, str | None] = dict.fromkeys(Collector)
        self._findings: frozenset[Key] = frozenset()
        self._new = self._gone = 0
        self._headline = self._status = ""
        self._told_at = -math.inf

    def take(self, judgement: Judgement) -> None:
        """Take what a look came to, and tell of it if it is time."""
        self._log_collectors(judgement)
        self._compare(judgement)
        self._headline = headline(judgement)
        self.tell()

    def tell(self) -> float:
        """Tell what waits to be told, if it is time; give the seconds until it is."""
        if not (self._new or self._gone or self._headline != self._status):
            return math.inf
        left = self._told_at + _APART - self._clock()
        if left > 0:
            return left
        self._log_findings()
        self._notify()
        self._told_at = self._clock()
        return math.inf

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

    def _compare(self, judgement: Judgement) -> None:
        findings = frozenset(finding.key for finding in judgement.findings)
        new, gone = findings - self._findings, self._findings - findings
        for kind, vm, thing in sorted(new):
            _log.debug("found", extra={"kind": kind, "vm": vm, "object": thing})
        self._findings = findings
        self._new += len(new)
        self._gone += len(gone)

    def _log_findings(self) -> None:
        if self._new or self._gone:
            counts = {"new": self._new, "gone": self._gone, "findings": len(self._findings)}
            _log.info("findings changed", extra=counts)
        self._new = self._gone = 0

    def _notify(self) -> None:
        if not self._status:
            self._notifier.ready(self._headline)
        elif self._headline != self._status:
            self._notifier.status(self._headline)
        self._status = self._headline
