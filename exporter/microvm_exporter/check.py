"""The report on demand: look once and print every finding."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, TextIO, assert_never

from microvm_exporter.config import CheckConfig
from microvm_exporter.drift import Judgement
from microvm_exporter.flags import ReportFormat
from microvm_exporter.model import Cause
from microvm_exporter.observer import Observer
from microvm_exporter.report import Status, render_json, render_text, status_of

__all__ = ["check"]

_PAUSE: Final = 1.0
"""Seconds until what does not count yet is looked at again."""

_SETTLE_MAX: Final = 30.0
"""Seconds for which a host that is in the middle of a switch is waited for."""

_log = logging.getLogger(__name__)

_EXIT_STATUS: Final = {Status.CLEAN: 0, Status.DRIFT: 1, Status.UNKNOWN: 2}


def check(config: CheckConfig) -> int:
    """Print the report on standard output and give the exit status.

    Raises OSError when it cannot be written there.
    """
    judgement = _look(config)
    match config.format:
        case ReportFormat.TEXT:
            text = render_text(judgement, colour=_wants_colour(sys.stdout, os.environ))
        case ReportFormat.JSON:
            text = render_json(judgement)
        case _:
            assert_never(config.format)
    with suppress(BrokenPipeError):  # `check | head`: who reads has seen enough
        # The report is UTF-8 whatever the locale is, and nothing in it may end the program.
        sys.stdout.buffer.write(text.encode(errors="backslashreplace"))
        sys.stdout.flush()
    return _EXIT_STATUS[status_of(judgement)]


def _look(config: CheckConfig) -> Judgement:
    observer = Observer(config.sources, follow=False)
    try:
        judgement, looks = observer.look(Cause.RESYNC), 1
        deadline = time.monotonic() + _SETTLE_MAX
        while judgement.unconfirmed and time.monotonic() < deadline:
            if looks == 2:  # the second is for what has to be seen twice
                _log.info("waiting for systemd's pending jobs", extra={"seconds": _SETTLE_MAX})
            time.sleep(_PAUSE)
            judgement, looks = observer.look(Cause.RESYNC), looks + 1
        return judgement
    finally:
        observer.close()


def _wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Only on a terminal that can, and not against https://no-color.org."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
