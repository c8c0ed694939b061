"""Tell systemd how the service is: sd_notify(3), for ``Type=notify`` and ``WatchdogSec=``.

Outside systemd there is no ``NOTIFY_SOCKET``, and everything here does nothing.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["Notifier"]

_log = logging.getLogger(__name__)

# PID 1 reads its datagrams at once, unless it is stuck: then the exporter must not be stuck too.
_TIMEOUT: Final = 0.5


@dataclass(frozen=True, slots=True)
class Notifier:
    """The line to systemd. What cannot be sent is logged and otherwise of no consequence.

    ``watchdog_interval`` is the time in seconds between two pings, half of what systemd allows
    as sd_watchdog_enabled(3) recommends, or None when no watchdog waits for this process.
    """

    address: str | None = None
    watchdog_interval: float | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """Read ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``."""
        return cls(environ.get("NOTIFY_SOCKET") or None, _watchdog_interval(environ))

    def ready(self, status: str) -> None:
        """Say that the start is complete."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(_status(status))

    def watchdog(self) -> None:
        """Say that the process still works, due every ``watchdog_interval``."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the service is on its way out."""
        self._send("STOPPING=1")

    def _send(self, *assignments: str) -> None:
        if self.address is None:
            return
        message = "\n".join(assignments).encode("utf-8", "backslashreplace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.settimeout(_TIMEOUT)
                line.sendto(message, _sockaddr(self.address))
        except OSError as error:
            _log.warning("could not notify systemd", extra={"socket": self.address, "error": error})


def _status(text: str) -> str:
    # A line break would begin another assignment.
    return "STATUS=" + " ".join(text.split())


def _sockaddr(address: str) -> str:
    """Give what the socket call takes: an abstract address is written with ``@`` for NUL."""
    return "\0" + address[1:] if address.startswith("@") else address


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not re.fullmatch(r"0*[1-9][0-9]{0,15}", microseconds):
        return None
    return int(microseconds) / 2_000_000
