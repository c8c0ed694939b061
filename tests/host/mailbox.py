"""A small SMTP server in the place of the mail server (RFC 5321): it keeps what it gets."""

from __future__ import annotations

import email
import email.policy
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from host.inbox import Inbox, Notification, serving


@contextmanager
def mailbox(inbox: Inbox) -> Iterator[str]:
    """Takes every mail, in plain text, and delivers it as a digest. Gives its ``host:port``."""
    with serving(_Server(("127.0.0.1", 0), partial(_Handler, inbox))) as (host, port):
        yield f"{host}:{port}"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _Handler(socketserver.StreamRequestHandler):
    def __init__(self, inbox: Inbox, *args: Any) -> None:
        self._inbox = inbox
        super().__init__(*args)

    def handle(self) -> None:
        self._say("220 localhost")
        while line := self.rfile.readline():
            match line.split(maxsplit=1)[0].upper():
                case b"DATA":
                    self._say("354 go on")
                    self._inbox.deliver(_digest(self._message()))
                    self._say("250 kept")
                case b"QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _message(self) -> bytes:
        """Up to the line with a dot alone; another that begins with a dot has one too many."""
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)


def _digest(message: bytes) -> Notification:
    mail = email.message_from_bytes(message, policy=email.policy.default)
    body = mail.get_body(("plain",))
    text = body.get_content().replace("\r\n", "\n") if body else ""
    extra = {"to": str(mail["To"]), "html": str(mail.get_body(("html",)) is not None)}
    return Notification("digest", str(mail["Subject"]), text, False, extra)
