"""The HTTP answers, asked for over real sockets."""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microvm_exporter.listen import ListenAddress
from microvm_exporter.server import WebServer
from microvm_exporter.web import Board, Page, Published, make_app

HTML = "text/html; charset=utf-8"
TEXT_004 = "text/plain; version=0.0.4; charset=utf-8"
TEXT_100 = "text/plain; version=1.0.0; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def page(content_type: str, body: bytes) -> Page:
    return Page(content_type, body, gzip.compress(body))


PUBLISHED = Published(
    text=page(TEXT_004, b"microvm_declared_vms 1.0\n"),
    openmetrics=page(OPENMETRICS, b"microvm_declared_vms 1.0\n# EOF\n"),
    index=page(HTML, b"<!doctype html><title>MicroVMs</title>"),
)


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """A board, and what asking its server gives."""

    address: ListenAddress
    board: Board = field(default_factory=Board)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Response:
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=5)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        response = Response(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return response


@pytest.fixture
def client() -> Iterator[Client]:
    board = Board()
    server = WebServer(make_app(board, "/metrics"), [ListenAddress("127.0.0.1", 0)])
    yield Client(server.start()[0], board)
    server.close()


@pytest.fixture
def published(client: Client) -> Client:
    client.board.publish(PUBLISHED)
    return client


@pytest.mark.parametrize(
    ("path", "status"), [("/-/healthy", 200), ("/-/ready", 503), ("/metrics", 503), ("/", 503)]
)
def test_before_the_first_snapshot(client: Client, path: str, status: int) -> None:
    response = client.ask(path)
    assert response.status == status
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.body.endswith(b"\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/-/healthy", b"healthy\n"),
        ("/-/ready", b"ready\n"),
        ("/metrics", PUBLISHED.text.body),
        ("/metrics?name[]=up", PUBLISHED.text.body),
        ("/", PUBLISHED.index.body),
    ],
)
def test_after_the_first_snapshot(published: Client, path: str, body: bytes) -> None:
    response = published.ask(path)
    assert (response.status, response.body) == (200, body)
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in response.headers


def test_all_pages_change_together(published: Client) -> None:
    published.board.publish(
        Published(page("a/b", b"new text"), page("a/b", b"new om"), page(HTML, b"new index"))
    )
    assert published.ask("/metrics").body == b"new text"
    assert published.ask("/metrics", Accept="application/openmetrics-text").body == b"new om"
    assert published.ask("/").body == b"new index"


@pytest.mark.parametrize("path", ["/metrics/", "/metric", "/favicon.ico", "/-/", "//etc", "*"])
def test_unknown_path_is_not_found(published: Client, path: str) -> None:
    assert published.ask(path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(published: Client, method: str) -> None:
    response = published.ask("/metrics", method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/ready", "/nothing"])
def test_head_is_get_without_the_body(published: Client, path: str) -> None:
    head, get = published.ask(path, "HEAD"), published.ask(path)
    assert head.body == b""
    assert head.status == get.status
    head.headers.pop("Date")
    get.headers.pop("Date")
    assert head.headers == get.headers


def test_page_may_load_nothing_and_be_framed_by_no_one(published: Client) -> None:
    headers = published.ask("/").headers
    assert headers["Content-Type"] == HTML
    policy = headers["Content-Security-Policy"].split("; ")
    assert {
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "frame-ancestors 'none'",
    } <= set(policy)


# What Prometheus 3 sends, by default and with native histograms.
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "q=0.7," + PROMETHEUS_3
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

ACCEPT = [
    ("", TEXT_004),
    ("*/*", TEXT_004),
    (BROWSER, TEXT_004),
    (PROMETHEUS_2, f"{OPENMETRICS}; escaping=underscores"),
    (PROMETHEUS_3, f"{OPENMETRICS}; escaping=allow-utf-8"),
    (PROMETHEUS_3_PROTOBUF, f"{OPENMETRICS}; escaping=allow-utf-8"),
    ("application/openmetrics-text", OPENMETRICS),
    ("application/openmetrics-text; q=0", TEXT_004),
    ("application/openmetrics-text; version=0.0.1", TEXT_004),
    ("application/openmetrics-text; version=2.0.0", TEXT_004),
    ("application/openmetrics-text; version=one", TEXT_004),
    ("application/openmetrics-text;version=2.0.0,application/openmetrics-text", OPENMETRICS),
    ("application/openmetrics-text;q=0.1, text/plain;version=0.0.4;q=0.9", TEXT_004),
    ("text/plain;version=0.0.4;q=0.1, application/openmetrics-text;q=0.9", OPENMETRICS),
    ("text/plain; version=1.0.0", f"{TEXT_100}; escaping=underscores"),
    ("text/plain; version=1.0.0; escaping=dots", f"{TEXT_100}; escaping=dots"),
    ("text/plain; q=often", TEXT_004),
    ("application/openmetrics-text; q=nan", TEXT_004),
    ("text/plain;version=1.0.0;version=one", TEXT_004),
    (";;;,,,=;q=", TEXT_004),
]


@pytest.mark.parametrize(("accept", "content_type"), ACCEPT)
def test_metrics_come_in_the_format_asked_for(
    published: Client, accept: str, content_type: str
) -> None:
    response = published.ask("/metrics", Accept=accept)
    assert response.headers["Content-Type"] == content_type
    expected = PUBLISHED.openmetrics if content_type.startswith(OPENMETRICS) else PUBLISHED.text
    assert response.body == expected.body
    assert response.headers["Vary"] == "Accept, Accept-Encoding"


header_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(str.strip)
media_types = st.sampled_from(
    ["text/plain", "application/openmetrics-text", ";version=", "1.0.0", ";q=", "0.5", ",", "gzip"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.one_of(header_values, st.lists(media_types).map("".join)))
def test_no_accept_header_breaks_a_scrape(published: Client, value: str) -> None:
    response = published.ask("/metrics", Accept=value, Accept_Encoding=value)
    assert response.status == 200
    assert response.headers["Content-Type"].partition("; escaping=")[0] in {
        TEXT_004,
        TEXT_100,
        OPENMETRICS,
    }


@pytest.mark.parametrize(
    ("accept_encoding", "gzipped"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5, br", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0, *", False),
        ("gzip;q=x", False),
        ("gzip;q=nan", False),
        ("x-gzip-not", False),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/"])
def test_gzip_comes_when_accepted(
    published: Client, path: str, accept_encoding: str, gzipped: bool
) -> None:
    response = published.ask(path, Accept_Encoding=accept_encoding)
    expected = PUBLISHED.index if path == "/" else PUBLISHED.text
    assert response.headers.get("Content-Encoding") == ("gzip" if gzipped else None)
    assert response.body == (expected.gzipped if gzipped else expected.body)
    assert "Accept-Encoding" in response.headers["Vary"]


def test_telemetry_path_is_a_choice() -> None:
    board = Board()
    board.publish(PUBLISHED)
    server = WebServer(make_app(board, "/probe/vms"), [ListenAddress("127.0.0.1", 0)])
    client = Client(server.start()[0], board)
    assert client.ask("/probe/vms").body == PUBLISHED.text.body
    assert client.ask("/metrics").status == 404
    server.close()
