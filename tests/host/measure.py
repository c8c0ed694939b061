"""What a benchmark measures in a machine: scrapes, and the processor time and memory of processes.

The scrapes are made by this module too, run in the machine: no port forward is measured with them.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from host.machine import PYTHON, Inside, Machine, MachineError
from host.nspawn import CHECKOUT

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Scrapes:
    """Latencies in seconds, from the request to the last byte, and the last body."""

    seconds: Sequence[float]
    size: int
    """Bytes of the body as sent."""
    samples: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """What 99 of 100 take at most."""
        return sorted(self.seconds)[-(-len(self.seconds) * 99 // 100) - 1]


def scrape(
    machine: Machine, port: int, count: int, *, pause: float = 0, compressed: bool = False
) -> Scrapes:
    """Scrapes `/metrics` in the machine over one connection, `pause` seconds after each answer."""
    encoding = "gzip" if compressed else "identity"
    done = machine.run(
        *(str(PYTHON), "-m", "host.measure", str(port), str(count), str(pause), encoding),
        env={"PYTHONPATH": str(CHECKOUT / "tests")},
        timeout=300 + count * pause,
    )
    return Scrapes(**json.loads(done.stdout))


def _scrape_here(port: int, count: int, pause: float, encoding: str) -> dict[str, object]:
    """What `scrape` runs in the machine; gives what `Scrapes` is made of."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    seconds, body = [], b""
    for _ in range(count):
        time.sleep(pause)
        begun = time.perf_counter()
        connection.request("GET", "/metrics", headers={"Accept-Encoding": encoding})
        answer = connection.getresponse()
        body = answer.read()
        seconds.append(time.perf_counter() - begun)
        if answer.status != http.HTTPStatus.OK:
            sys.exit(f"status {answer.status}: {body[:200]!r}")
    text = gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body
    samples = sum(not line.startswith(b"#") for line in text.splitlines())
    return {"seconds": seconds, "size": len(body), "samples": samples}


class Meter:
    """The processor time of processes from now on, less what they use when nothing is asked.

    Processes are given by their folders in /proc, `idle` in seconds a second.
    """

    def __init__(
        self, processes: Mapping[str, Path], idle: Mapping[str, float] | None = None
    ) -> None:
        self._processes = processes
        self._idle = idle or {}
        self._begun = time.monotonic()
        self._before = {name: cpu_seconds(path) for name, path in processes.items()}

    def spent(self, times: float) -> dict[str, float]:
        """Seconds for each of `times` rounds of work."""
        elapsed = time.monotonic() - self._begun
        used = {
            name: cpu_seconds(path) - self._before[name] for name, path in self._processes.items()
        }
        return {
            name: (seconds - self._idle.get(name, 0.0) * elapsed) / times
            for name, seconds in used.items()
        }

    def rates(self) -> dict[str, float]:
        """Seconds for each second."""
        return self.spent(time.monotonic() - self._begun)


def cpu_seconds(process: Path) -> float:
    """User and system time of a process (proc(5)); its name may have blanks and parentheses."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def share_of_cores_in_use(seconds: float) -> float:
    """Watches all cores for some time, which is not the exporters' if they do nothing meanwhile."""
    before, idle_before = _core_ticks()
    time.sleep(seconds)
    after, idle_after = _core_ticks()
    return 1 - (idle_after - idle_before) / (after - before)


def _core_ticks() -> tuple[int, int]:
    """All time of all cores, and that in which they did nothing (proc(5))."""
    first, *_ = Path("/proc/stat").read_text().splitlines()
    ticks = [int(field) for field in first.split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in bytes. `proportional` counts what n processes share as an nth."""

    resident: int
    proportional: int
    peak: int
    """The most that was ever resident."""

    @classmethod
    def of(cls, process: Path) -> Self:
        """That of a process given by its folder in /proc."""
        status = _kilobytes(process / "status")
        rollup = _kilobytes(process / "smaps_rollup")
        return cls(status["VmRSS"] * 1024, rollup["Pss"] * 1024, status["VmHWM"] * 1024)


def _kilobytes(file: Path) -> dict[str, int]:
    fields = (line.split() for line in file.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in fields if row[-1] == "kB"}


class NotifySocket:
    """Stands for systemd's: hears from a service in the machine as soon as it has something new.

    The service needs `path` as its NOTIFY_SOCKET.
    """

    path = PurePosixPath("/run/bench-notify")

    def __init__(self, machine: Machine) -> None:
        self._here = here = machine.path(self.path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(here))
        self._socket.settimeout(1)
        here.chmod(0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._here.unlink()

    def wait(self, service: Inside, timeout: float = 60.0) -> float:
        """Waits for the service's next message; gives the Unix time at which it came."""
        deadline = time.monotonic() + timeout
        while service.poll() is None and time.monotonic() < deadline:
            try:
                self._socket.recv(4096)
            except TimeoutError:
                continue
            return time.time()
        service.kill()
        raise MachineError(f"no message from {service.args!r}")


if __name__ == "__main__":
    _, port, count, pause, encoding = sys.argv
    json.dump(_scrape_here(int(port), int(count), float(pause), encoding), sys.stdout)
