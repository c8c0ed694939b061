"""sd_notify over real sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microvm_exporter.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end, at a path or at an abstract address."""
    abstract = f"\0microvm-exporter-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(abstract if request.param == "abstract" else str(tmp_path / "notify"))
        end.settimeout(5)
        yield end


def notifier(manager: socket.socket, **environ: str) -> Notifier:
    name = manager.getsockname()
    address = name if isinstance(name, str) else "@" + name[1:].decode()
    return Notifier.from_environ({"NOTIFY_SOCKET": address, **environ})


@pytest.mark.parametrize(
    ("say", "datagram"),
    [
        (lambda line: line.ready("12 declared"), b"READY=1\nSTATUS=12 declared"),
        (lambda line: line.status("12 declared"), b"STATUS=12 declared"),
        (lambda line: line.watchdog(), b"WATCHDOG=1"),
        (lambda line: line.stopping(), b"STOPPING=1"),
        (lambda line: line.status("a\nMAINPID=1\r\n b"), b"STATUS=a MAINPID=1 b"),
        (lambda line: line.status("caf\u00e9 \udcff"), b"STATUS=caf\xc3\xa9 \\udcff"),
    ],
)
def test_state_is_one_datagram(
    manager: socket.socket, say: Callable[[Notifier], None], datagram: bytes
) -> None:
    say(notifier(manager))
    assert manager.recv(4096) == datagram


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier.from_environ(environ).watchdog_interval == seconds


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_nothing_is_said_outside_systemd(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    Notifier.from_environ(environ).ready("12 declared")
    assert caplog.records == []


@pytest.mark.parametrize(
    "address", ["/nowhere/notify", "@nobody-listens", "/" + "x" * 200, "vsock:2:1234", "/dev/null"]
)
def test_failure_is_logged_and_of_no_consequence(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier.from_environ({"NOTIFY_SOCKET": address}).watchdog()
    assert [record.message for record in caplog.records] == ["could not notify systemd"]


def test_manager_that_is_stuck_does_not_stop_the_service(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    line = notifier(manager)
    begin = time.monotonic()
    while not caplog.records:
        line.watchdog()
    assert time.monotonic() - begin < 5
