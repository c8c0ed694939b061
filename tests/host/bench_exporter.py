"""The exporter, and node_exporter, at work in the machine of ``make bench``."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from host.bench_host import BenchHost
from host.exporter import COMMAND, DECLARATION, PORT, USER
from host.machine import Inside, Machine, MachineError, eventually
from host.measure import NotifySocket
from host.nspawn import CHECKOUT
from microvm_exporter.model import Collector

NODE_EXPORTER = CHECKOUT / ".tools/usr/bin/prometheus-node-exporter"
NODE_EXPORTER_PORT = 9100

_FAMILY_REGEX = r"microvm(-[a-z-]+)?@.+\.service|install-microvm-.+\.service"
_SPARE_VMS = 100
_QUIET_AFTER = 300.0  # seconds; a look at 35,000 units while PID 1 is busy takes its time


@dataclass(frozen=True, slots=True)
class Running:
    """An exporter that serves: its process, as a folder in /proc, and its address from here."""

    folder: Path
    url: str

    def samples(self) -> dict[str, float]:
        """Scrapes once; gives values by the text before them."""
        lines = get(f"{self.url}/metrics").decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def refreshes(self) -> dict[str, float]:
        """How many looks there were, by cause."""
        samples = self.samples()
        name = "microvm_exporter_refreshes_total"
        causes = ("event", "interval", "resync")
        return {cause: samples.get(f'{name}{{cause="{cause}"}}', 0.0) for cause in causes}

    def is_at_rest(self) -> bool:
        """Every collector has succeeded, and there is no drift."""
        samples = self.samples()
        drift = [name for name in samples if name.startswith("microvm_drift_finding{")]
        name = "microvm_exporter_collector_success"
        return not drift and all(samples[f'{name}{{collector="{one}"}}'] for one in Collector)


@contextmanager
def exporter(host: BenchHost, *flags: str) -> Iterator[Running]:
    """Has the exporter run with a first snapshot that is complete and tells of no drift.

    Raises MachineError when that does not come: then the host is not as it was made.
    """
    with _running(host.machine, *_argv(host, *flags)) as process:
        running = Running(_folder(process), url(host.machine, PORT))
        eventually("it serves", lambda: process.poll() is None and _serves(running.url), 30)
        wait_for_rest(running)
        yield running


def wait_for_rest(running: Running) -> None:
    """Waits until all is well again, and raises MachineError when it does not get so."""
    deadline = time.monotonic() + _QUIET_AFTER
    while not running.is_at_rest():
        if time.monotonic() > deadline:
            found = [
                name for name in running.samples() if name.startswith("microvm_drift_finding{")
            ]
            raise MachineError("the host is not as it was made: " + " ".join(found[:5]))
        time.sleep(0.5)


def first_snapshot(host: BenchHost) -> float:
    """Seconds from a start of the exporter until it tells systemd that it is ready."""
    with NotifySocket(host.machine) as news:
        env = {"NOTIFY_SOCKET": str(news.path)}
        begun = time.time()
        with _running(host.machine, *_argv(host), env=env) as process:
            return news.wait(process) - begun


@contextmanager
def node_exporter(machine: Machine) -> Iterator[Running]:
    """Has node_exporter tell of the same units and of nothing else."""
    argv = (
        f"--web.listen-address=127.0.0.1:{NODE_EXPORTER_PORT}",
        "--collector.disable-defaults",
        "--collector.systemd",
        f"--collector.systemd.unit-include={_FAMILY_REGEX}",
    )
    with _running(machine, str(NODE_EXPORTER), *argv) as process:
        running = Running(_folder(process), url(machine, NODE_EXPORTER_PORT))
        eventually("it serves", lambda: process.poll() is None and _serves(running.url), 30)
        yield running


def url(machine: Machine, port: int) -> str:
    """For what is not measured: it goes through a forward."""
    host, outside = machine.forward(port, 0)
    return f"http://{host}:{outside}"


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def _argv(host: BenchHost, *flags: str) -> tuple[str, ...]:
    limit = f"--collect.max-vms={len(host.fleet.vms) + _SPARE_VMS}"
    return (COMMAND, "serve", f"--declaration.file={DECLARATION}", limit, *flags)


@contextmanager
def _running(
    machine: Machine, *argv: str, env: Mapping[str, str] | None = None
) -> Iterator[Inside]:
    with tempfile.TemporaryFile("w+") as log:  # a pipe that nobody reads would be full some day
        process = machine.popen(*argv, user=USER, env=env, stdout=subprocess.DEVNULL, stderr=log)
        try:
            yield process
        except (MachineError, AssertionError, OSError) as error:
            log.seek(0)
            raise MachineError(f"{error}\n{log.read()[-2000:]}") from error
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=10)
            finally:
                process.kill()


def _folder(process: Inside) -> Path:
    return Path(f"/proc/{process.command_pid}")


def _serves(url: str) -> bool:
    try:
        return bool(get(f"{url}/metrics"))
    except OSError:
        return False
