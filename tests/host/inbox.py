"""What people get: the receivers of notifications, and all that came to them in one place.

The pager and the chat are reached over HTTP (`host.webhook`), the mail over SMTP
(`host.mailbox`).
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Notification:
    """One message as a person reads it."""

    receiver: str
    """``page``, ``chat``, ``digest`` or ``watchdog``."""
    title: str
    text: str
    resolved: bool
    """Nothing of what it tells of is firing any more."""
    extra: dict[str, str] = field(default_factory=dict)
    """What else that kind of receiver shows, such as links."""


class Inbox:
    """The notifications in the order in which they came. Any thread may deliver."""

    def __init__(self, tell: Callable[[Notification], None] = lambda _: None) -> None:
        """Also calls ``tell`` with each, one at a time."""
        self._tell = tell
        self._came = threading.Condition()
        self._all: list[Notification] = []

    def deliver(self, notification: Notification) -> None:
        with self._came:
            self._all.append(notification)
            self._tell(notification)
            self._came.notify_all()

    def of(self, receiver: str) -> list[Notification]:
        """What came for one receiver."""
        with self._came:
            return [each for each in self._all if each.receiver == receiver]

    def wait_for(
        self, what: str, wanted: Callable[[Notification], bool], timeout: float = 30.0
    ) -> Notification:
        """The first that is wanted, from the beginning on.

        Raises AssertionError, with the titles of what came, when none comes in time.
        """
        with self._came:
            if self._came.wait_for(lambda: any(map(wanted, self._all)), timeout):
                return next(filter(wanted, self._all))
            came = "\n".join(f"{each.receiver}: {each.title}" for each in self._all)
        raise AssertionError(f"not within {timeout} s: {what}; what came:\n{came}")


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[tuple[str, int]]:
    """Has a server answer in threads of its own; gives its address."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    host, port = server.socket.getsockname()
    try:
        yield host, port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
