"""A port of a machine's loopback, reachable from outside.

The machine's network has no way out, so each connection is made by a thread that has joined it:
a namespace belongs to a thread, and the listener's thread stays in its own.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import socketserver
import threading
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # <sched.h>; os.setns exists since Python 3.12
_libc = ctypes.CDLL(None, use_errno=True)


class Forward:
    """Listens on 127.0.0.1 here and connects to 127.0.0.1 in the network of process `leader`."""

    def __init__(self, leader: int, port: int, outside: int) -> None:
        """Listens on port `outside` (any free one when 0); raises OSError when it is taken."""
        self._server = _Server(("127.0.0.1", outside), _Handler)
        self._server.target = (leader, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.daemon = True
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.socket.getsockname()
        return host, port

    def close(self) -> None:
        """Stops listening; connections end with the machine."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    target: tuple[int, int]

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that could not be made is closed; who asked for it sees that."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        leader, port = self.server.target
        _join_network(leader)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as inner:
            inner.settimeout(None)
            _relay(self.request, inner)


def _join_network(leader: int) -> None:
    """Moves the calling thread, for the rest of its life, into the network of process `leader`."""
    with Path(f"/proc/{leader}/ns/net").open() as network:
        if _libc.setns(network.fileno(), _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


def _relay(outer: socket.socket, inner: socket.socket) -> None:
    """Copies both ways until both sides have finished sending."""
    with selectors.DefaultSelector() as selector:
        selector.register(outer, selectors.EVENT_READ, inner)
        selector.register(inner, selectors.EVENT_READ, outer)
        while selector.get_map():
            for key, _ in selector.select():
                source, target = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                if data := source.recv(65536):
                    target.sendall(data)
                else:
                    selector.unregister(source)
                    target.shutdown(socket.SHUT_WR)
