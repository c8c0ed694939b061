"""A small HTTP server in the place of pager, chat and dead man's switch: it keeps what it gets."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from host.inbox import Inbox, Notification, serving


@contextmanager
def webhook(inbox: Inbox) -> Iterator[str]:
    """Takes what is posted for PagerDuty to `/page`, for Slack to `/chat`, and to `/watchdog`.

    It goes to the inbox under the name of the path. Gives the URL before that.
    """
    with serving(_Server(("127.0.0.1", 0), partial(_Handler, inbox))) as (host, port):
        yield f"http://{host}:{port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # those of connections that are kept alive


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, inbox: Inbox, *args: Any) -> None:
        self._inbox = inbox
        super().__init__(*args)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._inbox.deliver(_READ[self.path.lstrip("/")](body))
        self.send_response(HTTPStatus.ACCEPTED if self.path == "/page" else HTTPStatus.OK)
        self.end_headers()
        if self.path == "/chat":
            self.wfile.write(b"ok")  # as Slack: Alertmanager 0.26 takes all else for a failure

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing on the terminal."""


def _page(body: dict[str, Any]) -> Notification:
    """PagerDuty's Events API, version 2, which refuses an empty summary or source.

    What resolves has a payload too.
    """
    payload = body["payload"]
    assert payload["summary"], payload
    assert payload["source"], payload
    return Notification(
        "page",
        payload["summary"],
        payload["custom_details"]["firing"] + payload["custom_details"]["resolved"],
        body["event_action"] == "resolve",
        {
            "severity": payload["severity"],
            "source": payload["source"],
            "incident": body["dedup_key"],
            "link": body.get("client_url", ""),
        },
    )


def _chat(body: dict[str, Any]) -> Notification:
    """An incoming webhook of Slack, or of what takes the same. Its three entities are shown."""
    (message,) = body["attachments"]
    title, text = (html.unescape(message[part]) for part in ("title", "text"))
    extra = {"raw": message["title"] + message["text"], "link": message["title_link"]}
    return Notification("chat", title, text, message["color"] == "good", extra)


def _watchdog(body: dict[str, Any]) -> Notification:
    """Alertmanager's own webhook, whose payload no template renders."""
    names = sorted({alert["labels"]["alertname"] for alert in body["alerts"]})
    return Notification("watchdog", " ".join(names), "", body["status"] == "resolved")


_READ = {"page": _page, "chat": _chat, "watchdog": _watchdog}
