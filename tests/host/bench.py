"""``make bench``: what the exporter costs on a host with 1,000 MicroVMs, and node_exporter there.

It boots a disposable host, starts ``BENCH_VMS`` MicroVMs (1,000) in it, lets the exporter look at
them and serve, has node_exporter's systemd collector tell of the same units after that, and prints
what it measured. It exits 1 when a target is missed. How it measures: docs/performance.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from host.bench_report import Load, Look, Refreshes, Result, report
from host.exporter import COMMAND, DECLARATION, PORT, REFRESHED, USER
from host.fleet import FAMILY, Fleet
from host.machine import Inside, Machine, MachineError, eventually
from host.measure import (
    Memory,
    Meter,
    NotifySocket,
    Scrapes,
    scrape,
    share_of_cores_in_use,
)
from host.nspawn import CHECKOUT
from host.vms import Vm
from microvm_exporter.model import Collector

_NODE_EXPORTER = CHECKOUT / ".tools/usr/bin/prometheus-node-exporter"
_NODE_EXPORTER_PORT = 9100
_FAMILY_REGEX = r"microvm(-[a-z-]+)?@.+\.service|install-microvm-.+\.service"

_BATCH = 100
_IDLE_SECONDS = 10
_LOOKS = 8
_SCRAPES = 250
_DEAR_SCRAPES = 5


def main() -> int:
    if why := Machine.missing():
        print(f"make bench needs a disposable host: {why}", file=sys.stderr)
        return 1
    if not _NODE_EXPORTER.exists():
        print("make bench needs node_exporter: scripts/fetch-tools brings it", file=sys.stderr)
        return 1
    try:
        result = _bench(int(os.environ.get("BENCH_VMS") or 1000))
    except MachineError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    print("\n" + report(result))
    return 0 if all(goal.reached for goal in result.goals) else 1


def _bench(vms: int) -> Result:
    _say("booting a disposable host (systemd-nspawn)")
    with Machine.boot() as machine:
        _fill(machine, vms)
        units, taps = _count(machine, vms)
        _say(f"{units:,} units and {taps:,} TAPs are there; {_IDLE_SECONDS} s without a look")
        watch = Watch.begin(machine)
        refreshes, ours = _measure_exporter(machine, watch)
        theirs = _measure_node_exporter(machine, watch)
    title = f"{vms:,} MicroVMs, {units:,} units, {taps:,} TAPs"
    return Result(title, watch.busy, refreshes, ours, theirs)


# ------------------------------------------------------------------------------------ the host


def _fill(machine: Machine, vms: int) -> None:
    """Starts the VMs some at a time: thousands of units in one go would tell of no progress."""
    fleet = Fleet(machine)
    names = [f"vm{number:04}" for number in range(vms)]
    fleet.declare(*(Vm(name, taps=(name,), light=True) for name in names))
    fleet.write_declaration(DECLARATION)
    machine.systemctl("daemon-reload")
    for begin in range(0, vms, _BATCH):
        batch = names[begin : begin + _BATCH]
        installs = (f"install-microvm-{name}.service" for name in batch)
        machine.systemctl("start", *installs, *(f"microvm@{name}.service" for name in batch))
        _say(f"started {begin + len(batch):,} of {vms:,} MicroVMs")
    fleet.switch()
    fleet.settle()


def _count(machine: Machine, vms: int) -> tuple[int, int]:
    """Gives the numbers of units and TAPs. Raises MachineError unless every VM has all and runs."""
    listing = machine.systemctl("list-units", "--all", "--plain", "--no-legend", *FAMILY)
    rows = [line.split() for line in listing.splitlines()]
    instances = [row for row in rows if "@" in row[0]]
    running = [row for row in instances if row[0].startswith("microvm@") and row[2] == "active"]
    taps = list(machine.path("/sys/class/net").glob("vm*"))
    if (len(running), len(taps)) != (vms, vms) or len(instances) < 6 * vms:
        found = f"{len(running)} run, {len(instances)} units, {len(taps)} TAPs"
        raise MachineError(f"not {vms} MicroVMs of six units each: {found}")
    return len(rows), len(taps)


@dataclass(frozen=True, slots=True)
class Watch:
    """The processes that answer a look, by name, and the processor time they use without one.

    ``busy`` is the share of all cores that was in use then, by whatever else runs.
    """

    processes: Mapping[str, Path]
    idle: Mapping[str, float]
    busy: float

    @classmethod
    def begin(cls, machine: Machine) -> Watch:
        bus = machine.show("dbus.service", "MainPID")["MainPID"]
        processes = {"PID 1": machine.path("/proc/1"), "dbus-daemon": machine.path(f"/proc/{bus}")}
        meter = Meter(processes)
        busy = share_of_cores_in_use(_IDLE_SECONDS)
        return cls(processes, meter.rates(), busy)

    def meter(self, process: Path) -> Meter:
        return Meter({"its own": process, **self.processes}, self.idle)


# ------------------------------------------------------------------------------- the exporters


def _measure_exporter(machine: Machine, watch: Watch) -> tuple[Refreshes, Load]:
    _say(f"microvm-exporter: {_LOOKS} refreshes after the first")
    argv = (COMMAND, "serve", "--collect.interval=5s", f"--declaration.file={DECLARATION}")
    url = _url(machine, PORT)
    with NotifySocket(machine) as news:
        begun = time.time()
        with _running(machine, *argv, env={"NOTIFY_SOCKET": str(news.path)}) as process:
            first = _wait_for_complete_look(news, process, url)
            first_memory = Memory.of(_folder(process))
            _wait_for_look(news, process, url)  # this one may have been late
            meter = watch.meter(_folder(process))
            looks = [_wait_for_look(news, process, url) for _ in range(_LOOKS)]
            cost = meter.spent(_LOOKS)
            _say(f"microvm-exporter: {2 * _SCRAPES} scrapes")
            plain, gzip = _scrape(machine, PORT, _SCRAPES, pause=0.1)  # over several refreshes
            memory = Memory.of(_folder(process))
    if not all(look.complete for look in looks):
        raise MachineError("a collector failed or was too late: is the machine busy otherwise?")
    return Refreshes(first.served - begun, first_memory, looks), Load(plain, gzip, cost, memory)


def _measure_node_exporter(machine: Machine, watch: Watch) -> Load:
    _say(f"node_exporter: {2 * _DEAR_SCRAPES} scrapes")
    argv = (
        f"--web.listen-address=127.0.0.1:{_NODE_EXPORTER_PORT}",
        "--collector.disable-defaults",
        "--collector.systemd",
        f"--collector.systemd.unit-include={_FAMILY_REGEX}",
    )
    with _running(machine, str(_NODE_EXPORTER), *argv) as process:
        url = _url(machine, _NODE_EXPORTER_PORT)
        eventually("node_exporter serves", lambda: process.poll() is None and _serves(url))
        scrape(machine, _NODE_EXPORTER_PORT, 1)
        meter = watch.meter(_folder(process))
        plain, gzip = _scrape(machine, _NODE_EXPORTER_PORT, _DEAR_SCRAPES, pause=1)
        cost = meter.spent(2 * _DEAR_SCRAPES)
        return Load(plain, gzip, cost, Memory.of(_folder(process)))


def _wait_for_complete_look(news: NotifySocket, process: Inside, url: str) -> Look:
    """Waits until every collector has brought something; all of it has to be asked at first."""
    for _ in range(20):
        if (look := _wait_for_look(news, process, url)).complete:
            return look
        _say("microvm-exporter: looking for longer than it waits for a look")
    raise MachineError("no look was complete")


def _wait_for_look(news: NotifySocket, process: Inside, url: str) -> Look:
    """Waits for a look to be served. Raises MachineError when it found drift: there is none."""
    served = news.wait(process)
    lines = _get(f"{url}/metrics").decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    drift = [
        name
        for name, value in samples.items()
        if name.startswith("microvm_drift_findings{") and float(value)
    ]
    if drift:
        raise MachineError(f"the host is not as it was made: {', '.join(drift)}")
    return Look(
        total=served - float(samples[REFRESHED]),
        collectors=_by_collector(samples, "duration_seconds"),
        complete=all(_by_collector(samples, "success").values()),
        served=served,
    )


def _by_collector(samples: Mapping[str, str], what: str) -> dict[str, float]:
    name = f"microvm_exporter_collector_{what}"
    return {
        collector: float(samples[f'{name}{{collector="{collector}"}}']) for collector in Collector
    }


def _scrape(machine: Machine, port: int, count: int, *, pause: float) -> tuple[Scrapes, Scrapes]:
    """Scrapes without and with compression."""
    return (
        scrape(machine, port, count, pause=pause),
        scrape(machine, port, count, pause=pause, compressed=True),
    )


@contextmanager
def _running(
    machine: Machine, *argv: str, env: Mapping[str, str] | None = None
) -> Iterator[Inside]:
    process = machine.popen(*argv, user=USER, env=env, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=10)
        finally:
            process.kill()


def _folder(process: Inside) -> Path:
    return Path(f"/proc/{process.command_pid}")


def _url(machine: Machine, port: int) -> str:
    """For what is not measured: it goes through a forward."""
    host, outside = machine.forward(port, 0)
    return f"http://{host}:{outside}"


def _serves(url: str) -> bool:
    try:
        return bool(_get(url))
    except OSError:
        return False


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def _say(what: str) -> None:
    print(f"bench: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
