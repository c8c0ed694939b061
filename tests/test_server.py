"""The HTTP server: where it listens, and what hostile clients cannot do to it."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.machine import eventually
from microvm_exporter.errors import UsageError
from microvm_exporter.listen import ListenAddress
from microvm_exporter.server import WebServer
from microvm_exporter.web import Board, Page, Published, make_app

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

BODY = b"m 1\n" * 1_000_000
LOOPBACK = ListenAddress("127.0.0.1", 0)

Start = Callable[..., list[ListenAddress]]


def application() -> WSGIApplication:
    page = Page("text/plain", BODY, b"")
    board = Board()
    board.publish(Published(page, page, page))
    return make_app(board, "/metrics")


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as servers:

        def _start(*addresses: ListenAddress, patience: int = 30) -> list[ListenAddress]:
            server = WebServer(application(), addresses, patience=patience)
            servers.callback(server.close)
            return server.start()

        yield _start


def scrape(address: ListenAddress, path: str = "/metrics") -> bytes:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def connect(address: ListenAddress, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    client.settimeout(10)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect((address.host, address.port))
    return client


def read_all(client: socket.socket, pause: float = 0) -> bytes:
    """Read until the server closes, by a reset too, with a pause in seconds now and then."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(1 << 20):
            received += chunk
            time.sleep(pause)
    return received


# ------------------------------------------------------------------------------------- addresses


def test_every_address_is_served(start: Start) -> None:
    addresses = start(LOOPBACK, ListenAddress("127.0.0.2", 0), ListenAddress("localhost", 0))
    assert [address.host for address in addresses] == ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
    assert [scrape(address) for address in addresses] == [BODY] * 3


@pytest.mark.parametrize("host", ["", "::"])
def test_no_host_is_every_address(start: Start, host: str) -> None:
    (address,) = start(ListenAddress(host, 0))
    reached = ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
    for loopback in reached:
        assert scrape(ListenAddress(loopback, address.port)) == BODY


def test_ipv4_wildcard_is_ipv4_alone(start: Start) -> None:
    (address,) = start(ListenAddress("0.0.0.0", 0))
    assert scrape(ListenAddress("127.0.0.1", address.port)) == BODY
    assert address.host == "0.0.0.0"


def test_port_in_use_is_named(start: Start) -> None:
    (address,) = start(LOOPBACK)
    message = f"--web.listen-address: cannot listen on {address}: the port is in use"
    with pytest.raises(UsageError) as error:
        start(address)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (ListenAddress("192.0.2.1", 0), "this host does not have that address"),
        (ListenAddress("fe80::1%nodev", 0), "Name or service not known"),
    ],
)
def test_address_that_cannot_be_had_is_named(
    start: Start, address: ListenAddress, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        start(address)
    assert f"--web.listen-address: cannot listen on {address}: " in str(error.value)


def test_nothing_is_left_listening_when_one_address_fails(start: Start) -> None:
    (taken,) = start(LOOPBACK)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = ListenAddress("127.0.0.1", probe.getsockname()[1])
    with pytest.raises(UsageError):
        start(free, taken)
    assert start(free) == [free]


# --------------------------------------------------------------------------------------- hostile


def test_idle_and_half_sent_requests_do_not_stop_a_scrape(start: Start) -> None:
    (address,) = start(LOOPBACK)
    with contextlib.ExitStack() as clients:
        for number in range(50):
            client = clients.enter_context(connect(address))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"[: number % 33])
        begin = time.monotonic()
        assert scrape(address) == BODY
        assert time.monotonic() - begin < 3


def test_clients_that_take_nothing_do_not_stop_a_scrape(start: Start) -> None:
    # Each asks for 400 answers of 4 MB on one connection, which is far beyond every buffer.
    (address,) = start(LOOPBACK)
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(connect(address, receive_buffer=4096))
            client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 400)
        time.sleep(0.2)
        begin = time.monotonic()
        assert scrape(address) == BODY
        assert time.monotonic() - begin < 3


def test_clients_that_take_nothing_get_no_copy_of_their_own(start: Start) -> None:
    (address,) = start(LOOPBACK)
    scrape(address)
    memory, files = _resident(), _open_files()
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(connect(address, receive_buffer=4096))
            client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        time.sleep(0.5)
        assert _resident() - memory < 5 * len(BODY)
        assert _open_files() == files


def _resident() -> int:
    """Give the bytes of memory that this process holds."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int:
    """Count the regular files that this process has open; temporary ones have no name."""
    return sum(descriptor.is_file() for descriptor in Path("/dev/fd").iterdir())


def test_more_connections_than_the_limit_hold_a_scrape_up_only_for_a_while(start: Start) -> None:
    (address,) = start(LOOPBACK, patience=1)
    with contextlib.ExitStack() as clients:
        for _ in range(300):
            clients.enter_context(connect(address)).sendall(b"GET / ")
        assert scrape(address) == BODY


def test_request_that_dribbles_in_is_cut_off(start: Start) -> None:
    (address,) = start(LOOPBACK, patience=1)
    with connect(address) as client:
        assert _dribble(client, seconds=8) < 4


def _dribble(client: socket.socket, seconds: float) -> float:
    """Send a byte now and then until the server has had enough; give how long that took."""
    begin = time.monotonic()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - begin < seconds:
            client.sendall(b"a")
            time.sleep(0.05)
    return time.monotonic() - begin


def test_answer_that_is_taken_too_slowly_is_cut_off(start: Start) -> None:
    (address,) = start(LOOPBACK, patience=1)
    with connect(address) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 20)
        assert len(read_all(client, pause=0.1)) < 20 * len(BODY)


def test_connection_of_a_client_that_takes_nothing_is_dropped(start: Start) -> None:
    (address,) = start(LOOPBACK, patience=1)
    before = _open_sockets()
    with connect(address, receive_buffer=4096) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
        eventually("it is accepted", lambda: _open_sockets() == before + 2)
        eventually("it is dropped", lambda: _open_sockets() == before + 1)


def _open_sockets() -> int:
    """Count those of this process, clients and servers."""
    return sum(descriptor.is_socket() for descriptor in Path("/dev/fd").iterdir())


def test_connection_in_use_outlives_the_patience(start: Start) -> None:
    (address,) = start(LOOPBACK, patience=2)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=5)
    for _ in range(4):
        # Fails on a connection that the server has closed.
        connection.request("GET", "/-/healthy")
        assert connection.getresponse().read() == b"healthy\n"
        time.sleep(1.3)
    connection.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 20_000, b"431"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET http://[/metrics HTTP/1.1\r\n\r\n", b"400"),
    ],
    ids=["header", "line", "body", "length", "encoding", "tls", "target"],
)
def test_bad_request_is_refused_and_no_news(
    start: Start, request_bytes: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (address,) = start(LOOPBACK)
    with connect(address) as client:
        client.sendall(request_bytes)
        answer = read_all(client)
    assert answer.split()[1] == status
    assert b"Server:" not in answer
    assert scrape(address) == BODY
    # "Task queue depth" is not shown (log.py); it comes when the machine is busy.
    assert [record for record in caplog.records if record.name != "waitress.queue"] == []


def test_descriptors_above_1023_are_served() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as undo:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            undo.enter_context(Path(os.devnull).open("rb"))
        server = WebServer(application(), [LOOPBACK])
        undo.callback(server.close)
        assert scrape(server.start()[0]) == BODY


# ----------------------------------------------------------------------------------------- close


def test_close_ends_everything_within_a_second() -> None:
    threads = threading.enumerate()
    server = WebServer(application(), [LOOPBACK, LOOPBACK])
    address, _ = server.start()
    with connect(address) as idle, connect(address, receive_buffer=4096) as slow:
        idle.sendall(b"GET /met")
        slow.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 10)
        time.sleep(0.1)
        begin = time.monotonic()
        server.close()
        assert time.monotonic() - begin < 1
        assert read_all(idle) == b""
    assert threading.enumerate() == threads
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def test_server_tells_whether_it_serves() -> None:
    server = WebServer(application(), [LOOPBACK])
    alive = [server.alive]
    server.start()
    alive.append(server.alive)
    server.close()
    alive.append(server.alive)
    assert alive == [False, True, False]


def test_port_is_free_again_after_close(start: Start) -> None:
    server = WebServer(application(), [LOOPBACK])
    (address,) = server.start()
    scrape(address)
    server.close()
    server.close()
    assert start(address) == [address]
