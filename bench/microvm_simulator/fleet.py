"""A fleet of simulated hosts that a real Prometheus scrapes: `python -m microvm_simulator.fleet`.

A few hosts are simulated, each looked at by the exporter's own code every interval. All others are
copies of these under other names, down to those of their VMs and devices: what is served for a
host is what its exporter would have rendered, by the exporter's own web server, compressed.
"""

from __future__ import annotations

import gzip
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from microvm_exporter.listen import ListenAddress
from microvm_exporter.model import Collector, Origin
from microvm_exporter.server import WebServer
from microvm_simulator.host import INTERVAL, SimulatedHost
from world import World, tap

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["HOSTS_A_SERVER", "TEMPLATES", "Fleet", "host_name", "make_world"]

TEMPLATES: Final = 20
"""How many hosts are simulated. Of twenty, one drifts, one comes and goes, one has leftovers."""

HOSTS_A_SERVER: Final = 200
"""Below the 256 connections that the exporter's server takes."""

_NAME: Final = "h0000"
_GZIP_LEVEL: Final = 1  # as the exporter's


def host_name(number: int) -> str:
    """Give the name of a host; its VMs' and devices' names begin with it."""
    return f"h{number:04}"


def make_world(name: str, vms: int) -> World:
    """A healthy host: most VMs are declarative, each has a TAP, and one of fifty is a spare."""
    world = World()
    for number in range(vms):
        spare = number % 50 == 49
        origin = (Origin.FLAKE, Origin.DEPLOYED)[number % 2] if number % 10 < 2 else None
        world.add(
            f"{name}-vm{number:02}",
            origin or Origin.DECLARATIVE,
            interfaces=(tap(f"{name}-tap{number:02}"),),
            running=not spare,
            autostart=not spare,
        )
    return world


class Fleet:
    """The pages of the hosts. `live` goes on in time, `page` gives what a host serves then."""

    def __init__(self, hosts: int, vms: int, now: float) -> None:
        worlds = (make_world(_NAME, vms) for _ in range(min(hosts, TEMPLATES)))
        self._hosts = [SimulatedHost(f"{_NAME}-{n}", world, now) for n, world in enumerate(worlds)]
        self._size = hosts
        self._looks = 0
        self._pages: list[bytes] = []
        for number, spoil in enumerate(_SPOILS[: len(self._hosts)]):
            spoil(self._hosts[number])
        self.live(now)

    def live(self, now: float) -> None:
        """Have every exporter look once more, and render."""
        self._looks += 1
        if len(self._hosts) > 1 and self._looks % 8 in (0, 4):
            _come_and_go(self._hosts[1], now, down=self._looks % 8 == 4)
        for host in self._hosts:
            host.live(now - INTERVAL, now)
        self._pages = [host.expose() for host in self._hosts]

    def page(self, number: int) -> bytes:
        """Give what the host of that number serves, as OpenMetrics."""
        page = self._pages[number % len(self._pages)]
        return page.replace(_NAME.encode(), host_name(number).encode())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve ``/NUMBER``."""
        number = environ["PATH_INFO"].removeprefix("/")
        if not (number.isdecimal() and int(number) < self._size):
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        body = gzip.compress(self.page(int(number)), _GZIP_LEVEL)
        headers = [
            ("Content-Type", CONTENT_TYPE_LATEST),
            ("Content-Encoding", "gzip"),
            ("Content-Length", str(len(body))),
        ]
        start_response(f"{HTTPStatus.OK.value} OK", headers)
        return [body]


def _drift(host: SimulatedHost) -> None:
    """A crash loop, an undeclared VM that runs, and a leaked TAP."""
    host.crash_loop(f"{_NAME}-vm00")
    host.undeclare(f"{_NAME}-vm02")
    host.world.link(f"{_NAME}-left")
    host.changed(Collector.LINKS)


def _nothing(_: SimulatedHost) -> None:
    pass


def _leftovers(host: SimulatedHost) -> None:
    """A VM that was stopped and undeclared, whose state nobody deleted."""
    host.stop(f"{_NAME}-vm02")
    host.undeclare(f"{_NAME}-vm02")
    host.stop(f"{_NAME}-vm02")  # nothing wants its unit now, so systemd forgets it


_SPOILS: Final[tuple[Callable[[SimulatedHost], None], ...]] = (_drift, _nothing, _leftovers)


def _come_and_go(host: SimulatedHost, now: float, *, down: bool) -> None:
    vm = f"{_NAME}-vm02"
    if down:
        host.stop(vm)
    else:
        host.start(vm, now)


def main() -> None:
    """Serve until standard input ends; print the ports as JSON, one for `HOSTS_A_SERVER` hosts."""
    hosts, vms = int(sys.argv[1]), int(sys.argv[2])
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # all hosts' requests wait in it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller
    fleet = Fleet(hosts, vms, time.time())
    servers = [
        WebServer(fleet, [ListenAddress("127.0.0.1", 0)], patience=120)
        for _ in range(0, hosts, HOSTS_A_SERVER)
    ]
    print(json.dumps([server.start()[0].port for server in servers]), flush=True)
    stop = threading.Event()
    threading.Thread(target=_await_end, args=(stop,), daemon=True).start()
    while not stop.wait(INTERVAL):
        fleet.live(time.time())
    for server in servers:
        server.close()


def _await_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
