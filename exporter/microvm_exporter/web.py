"""What is answered over HTTP: the metrics, a page for people, and how the process is.

The answers are bytes made once a snapshot. A request touches nothing but the :class:`Board`, so
it costs the same however large the host is and whatever the collectors are busy with.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Board", "Page", "Published", "make_app"]


@dataclass(frozen=True, slots=True)
class Page:
    """A body, ready to send: as it is, and compressed."""

    content_type: str
    body: bytes
    gzipped: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """Everything made of one snapshot."""

    text: Page
    openmetrics: Page
    index: Page


class Board:
    """The one mutable cell between who publishes and who serves."""

    __slots__ = ("_published",)

    def __init__(self) -> None:
        self._published: Published | None = None

    @property
    def current(self) -> Published | None:
        """What was published last, None before the first snapshot."""
        return self._published

    def publish(self, published: Published) -> None:
        """Replace all pages at once: no request sees those of two snapshots."""
        self._published = published


def make_app(board: Board, telemetry_path: str) -> WSGIApplication:
    """Give the WSGI application that serves the board, the metrics at ``telemetry_path``."""
    return _App(board, telemetry_path)


# ---------------------------------------------------------------------------------- application

_PLAIN: Final = "text/plain; charset=utf-8"
# The page brings its style along and needs nothing else: no script, no picture, no frame.
_PAGE_HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    body: bytes
    content_type: str = _PLAIN
    headers: tuple[tuple[str, str], ...] = ()


_HEALTHY: Final = _Answer("200 OK", b"healthy\n")
_READY: Final = _Answer("200 OK", b"ready\n")
_NOT_READY: Final = _Answer(
    "503 Service Unavailable", b"not ready: the first look at the host is not complete\n"
)
_NOT_FOUND: Final = _Answer("404 Not Found", b"not found\n")
_NOT_ALLOWED: Final = _Answer(
    "405 Method Not Allowed", b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),)
)


class _App:
    def __init__(self, board: Board, telemetry_path: str) -> None:
        self._board = board
        self._routes: dict[str, Callable[[WSGIEnvironment], _Answer]] = {
            telemetry_path: self._metrics,
            "/": self._index,
            "/-/healthy": lambda _: _HEALTHY,
            "/-/ready": lambda _: _READY if board.current else _NOT_READY,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route = self._routes.get(environ["PATH_INFO"])
        if route is None:
            return _send(_NOT_FOUND, environ, start_response)
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _send(_NOT_ALLOWED, environ, start_response)
        return _send(route(environ), environ, start_response)

    def _metrics(self, environ: WSGIEnvironment) -> _Answer:
        published = self._board.current
        if published is None:
            return _NOT_READY
        content_type = _metrics_type(environ.get("HTTP_ACCEPT", ""))
        openmetrics = content_type.startswith(_OPENMETRICS)
        page = published.openmetrics if openmetrics else published.text
        return _page_answer(page, environ, content_type, (("Vary", "Accept, Accept-Encoding"),))

    def _index(self, environ: WSGIEnvironment) -> _Answer:
        published = self._board.current
        if published is None:
            return _NOT_READY
        headers = (("Vary", "Accept-Encoding"), *_PAGE_HEADERS)
        return _page_answer(published.index, environ, published.index.content_type, headers)


def _page_answer(
    page: Page,
    environ: WSGIEnvironment,
    content_type: str,
    headers: tuple[tuple[str, str], ...],
) -> _Answer:
    if _accepts_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
        encoded = (*headers, ("Content-Encoding", "gzip"))
        return _Answer("200 OK", page.gzipped, content_type, encoded)
    return _Answer("200 OK", page.body, content_type, headers)


def _send(
    answer: _Answer, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *answer.headers,
    ]
    start_response(answer.status, headers)
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    # A file, so that the server sends from the published bytes themselves: however many clients
    # are slow to take them, none has a copy of its own.
    body: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(answer.body))
    return body


# ---------------------------------------------------------------------------------- negotiation

_OPENMETRICS: Final = "application/openmetrics-text"
# What prometheus_client is asked about: it would claim any later version that a client names, and
# fails on one that is no number.
_KNOWN: Final = frozenset(
    {
        (_OPENMETRICS, ""),
        (_OPENMETRICS, "1.0.0"),
        ("text/plain", ""),
        ("text/plain", "0.0.4"),
        ("text/plain", "1.0.0"),
    }
)


@dataclass(frozen=True, slots=True)
class _Clause:
    """An element of an Accept or Accept-Encoding header (RFC 9110, 12.4.2 and 12.5)."""

    name: str
    parameters: Mapping[str, str]

    @property
    def version(self) -> str:
        return self.parameters.get("version", "")

    @property
    def weight(self) -> float:
        """From 0, which refuses, to 1; what is no number refuses too."""
        try:
            return max(0.0, float(self.parameters.get("q", "1")))  # nan is no larger than 0
        except ValueError:
            return 0.0


def _clauses(header: str) -> list[_Clause]:
    return [_clause(*(part.strip() for part in text.split(";"))) for text in header.split(",")]


def _clause(name: str, *parameters: str) -> _Clause:
    pairs = (parameter.partition("=") for parameter in parameters)
    return _Clause(name.lower(), {key.lower(): value for key, _, value in pairs})


def _metrics_type(accept: str) -> str:
    """Give the content type that the client likes best, text 0.0.4 when it names none of ours.

    Metric and label names are valid in every version and escaping, so the bytes do not depend
    on them.
    """
    clauses = [clause for clause in _clauses(accept) if (clause.name, clause.version) in _KNOWN]
    best = max(clauses, key=lambda clause: clause.weight, default=None)
    if best is None or best.weight <= 0:
        return choose_encoder("")[1]
    escaping = best.parameters.get("escaping", "")
    return choose_encoder(f"{best.name};version={best.version};escaping={escaping}")[1]


def _accepts_gzip(accept_encoding: str) -> bool:
    weights = {clause.name: clause.weight for clause in _clauses(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0)) > 0
