"""The HTTP server: waitress, with limits for clients that are slow or mean no good.

One thread moves bytes, two call the application, and none of them ever waits for a client.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from microvm_exporter.errors import UsageError
from microvm_exporter.flags import WEB_LISTEN_ADDRESS
from microvm_exporter.listen import ListenAddress

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["WebServer"]

_THREADS: Final = 2
_BACKLOG: Final = 128
_CONNECTIONS_MAX: Final = 256
_POLL_SECONDS: Final = 1
_CLOSE_SECONDS: Final = 1

_REASONS: Final = {
    errno.EADDRINUSE: "the port is in use",
    errno.EADDRNOTAVAIL: "this host does not have that address",
    errno.EACCES: "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE",
    errno.EAFNOSUPPORT: "this host has no IPv6",
}


def _adjustments(patience: int) -> Adjustments:
    return Adjustments(
        ident=None,
        backlog=_BACKLOG,
        # Out of descriptors the loop would spin on accept(), and the collectors could open nothing.
        connection_limit=min(_CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2),
        channel_timeout=patience,
        cleanup_interval=_POLL_SECONDS,
        # A scrape sends a few hundred bytes of headers and no body.
        max_request_header_size=16 * 1024,
        max_request_body_size=16 * 1024,
        # What waits for a slow client is not a copy (see web.py): no reason to hold a thread.
        outbuf_high_watermark=sys.maxsize,
        # A client that went away is no event.
        log_socket_errors=False,
        # There is no proxy to trust, and the application reads none of its headers.
        clear_untrusted_proxy_headers=False,
    )


class WebServer:
    """Serves a WSGI application on every address given, from threads of its own.

    A connection that has had no answer for ``patience`` seconds is closed.
    """

    def __init__(
        self, app: WSGIApplication, addresses: Sequence[ListenAddress], *, patience: int = 30
    ) -> None:
        self._app = app
        self._addresses = addresses
        self._adjustments = _adjustments(patience)
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._undo = contextlib.ExitStack()

    def start(self) -> list[ListenAddress]:
        """Listen and serve; give the addresses with their real ports.

        Raises UsageError, and listens nowhere, when an address cannot be had.
        """
        with contextlib.ExitStack() as undo:
            sockets = [undo.enter_context(_listen(address)) for address in self._addresses]
            undo.pop_all()
        self._serve(sockets)
        return [ListenAddress(*listening.getsockname()[:2]) for listening in sockets]

    def _serve(self, sockets: Sequence[socket.socket]) -> None:
        # A map of our own: waitress's default is shared by the whole process.
        connections: dict[int, socket.socket] = {}
        self._undo.callback(wasyncore.close_all, connections)
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(_THREADS)
        self._undo.callback(dispatcher.shutdown, timeout=_CLOSE_SECONDS)
        for listening in sockets:
            listener = _Listener(
                self._app,
                connections,
                _sock=listening,
                dispatcher=dispatcher,
                adj=self._adjustments,
                sockinfo=(listening.family, listening.type, None, listening.getsockname()),
                bind_socket=False,
            )
        self._thread = threading.Thread(
            target=self._loop, args=(connections,), name="web", daemon=True
        )
        self._undo.callback(self._thread.join, timeout=_CLOSE_SECONDS)
        self._undo.callback(listener.pull_trigger)
        self._undo.callback(self._closing.set)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are served: false before the start, at the end and after a crash."""
        return self._thread is not None and self._thread.is_alive()

    def _loop(self, connections: dict[int, socket.socket]) -> None:
        while not self._closing.is_set():
            # poll(2), because select(2) cannot take descriptors above 1023.
            wasyncore.loop(_POLL_SECONDS, use_poll=True, map=connections, count=1)

    def close(self) -> None:
        """Stop listening and drop every connection, within a second. A second call does nothing."""
        self._undo.close()


class _Parser(HTTPRequestParser):
    """A request, refused where waitress 3 would log an error: its target is no URL."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:  # of urllib's, as for http://[
            raise ParsingError("Bad URI") from None


class _Channel(HTTPChannel):
    """A connection whose time begins anew with every request answered, and with nothing else."""

    parser_class = _Parser

    def service(self) -> None:
        # First: from the end of the answer on, the other thread may find it over its time.
        self.creation_time = time.time()
        super().service()


class _Listener(TcpWSGIServer):
    channel_class = _Channel

    def maintenance(self, now: float) -> None:
        """Close connections that are over their time.

        waitress's own rule spares whoever keeps sending or taking a byte now and then.
        """
        channels = cast("dict[int, _Channel]", self.active_channels)
        for channel in list(channels.values()):
            if not channel.requests and channel.creation_time < now - self.adj.channel_timeout:
                channel.will_close = True
                # waitress closes it when it can be written, which it never can for a client that
                # takes nothing; once it is shut down, it can.
                if connection := channel.socket:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)


def _listen(address: ListenAddress) -> socket.socket:
    try:
        return _bind(address)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        message = f"{WEB_LISTEN_ADDRESS.name}: cannot listen on {address}: {reason}"
        raise UsageError(message) from error


def _bind(address: ListenAddress) -> socket.socket:
    if address.host in {"", "::"} and socket.has_dualstack_ipv6():
        any_address = ("::", address.port)
        return socket.create_server(
            any_address, family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    found = socket.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # One socket an address, as in Prometheus's own programs: IPv4 where a name has both.
    family, _, _, _, sockaddr = min(found, key=lambda info: info[0] != socket.AF_INET)
    return socket.create_server(sockaddr, family=family, backlog=_BACKLOG)
