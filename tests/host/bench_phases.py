"""What ``make bench`` measures of the exporter, one phase after the other, each as figures."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from host.bench_changes import churn, measure_latencies
from host.bench_exporter import (
    NODE_EXPORTER_PORT,
    Running,
    exporter,
    first_snapshot,
    node_exporter,
    wait_for_rest,
)
from host.bench_host import (
    DECLARATION_AS_IT_IS,
    PATIENCE,
    RELOAD,
    BenchHost,
    replace_declaration,
)
from host.bench_inside import Churned, Latencies, Task, start
from host.bench_report import Figure, Load, percent, seconds, size, text, whole
from host.exporter import PORT
from host.machine import Machine, MachineError, eventually
from host.measure import Memory, Meter, Scrapes, scrape, share_of_cores_in_use
from host.runners import write_runner
from host.vms import Vm

INTERVAL = 15.0
"""Seconds between two looks, and two scrapes, by default."""

RESYNC = 300.0
"""Seconds between two looks at everything, by default."""

_STARTS = 5
_WATCH_SECONDS = 30
_CHANGES_A_SECOND = 10.0
_RESTARTED = 200
_STEPS = 10
_SCRAPES = 250
_DEAR_SCRAPES = 5
_EARLY = 0.2  # of the time between two looks, so that few scrapes are measured with them


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
        busy = share_of_cores_in_use(_WATCH_SECONDS)
        return cls(processes, meter.rates(), busy)

    def meter(self, process: Path) -> Meter:
        return Meter({"its own": process, **self.processes}, self.idle)


def measure_starts(host: BenchHost) -> list[Figure]:
    """The first one warms the page cache up and does not count."""
    first_snapshot(host)
    found = [first_snapshot(host) for _ in range(_STARTS)]
    return [
        Figure("first full snapshot after a start", statistics.median(found), seconds, 2.0),
        Figure("first full snapshot, slowest of 5", max(found), seconds),
    ]


def measure_rest(watch: Watch, host: BenchHost, lasts: float) -> tuple[list[Figure], Load]:
    """Nothing changes but the time, for so many seconds, with one look at everything among them.

    Then it is scraped more often.
    """
    resync = min(RESYNC, lasts - INTERVAL)
    with exporter(host, f"--collect.resync-interval={resync:.0f}s") as running:
        time.sleep(2)
        before, meter = running.refreshes(), watch.meter(running.folder)
        scrape(host.machine, PORT, int(lasts // INTERVAL), pause=INTERVAL, compressed=True)
        rates = meter.rates()
        looks = _grown(before, running.refreshes())
        plain = scrape(host.machine, PORT, _SCRAPES, pause=0.1)
        gzip = scrape(host.machine, PORT, _SCRAPES, pause=0.1, compressed=True)
        memory = Memory.of(running.folder)
    if not looks["resync"]:
        raise MachineError("nothing was looked at again while nothing changed")
    figures = [
        *(
            Figure(f"at rest, a core's share, {name}", max(0.0, rate), percent, 0.005)
            for name, rate in rates.items()
        ),
        Figure("at rest, looks", sum(looks.values()), text(_by_cause(looks))),
        Figure("at rest, memory, resident", memory.resident, size),
        Figure("at rest, memory, proportional", memory.proportional, size),
    ]
    cost = {name: rate * INTERVAL for name, rate in rates.items()}
    return figures, Load(plain, gzip, cost, memory)


def measure_node_exporter(watch: Watch, host: BenchHost) -> Load:
    """Scrapes node_exporter, of which each scrape is a look."""
    with node_exporter(host.machine) as running:
        scrape(host.machine, NODE_EXPORTER_PORT, 1)
        meter = watch.meter(running.folder)
        plain = scrape(host.machine, NODE_EXPORTER_PORT, _DEAR_SCRAPES, pause=1)
        gzip = scrape(host.machine, NODE_EXPORTER_PORT, _DEAR_SCRAPES, pause=1, compressed=True)
        cost = meter.spent(2 * _DEAR_SCRAPES)
        return Load(plain, gzip, cost, Memory.of(running.folder))


def measure_looks(watch: Watch, host: BenchHost, looks_made: int) -> list[Figure]:
    """Processor time of a look at everything, and of one at what no event tells."""
    apart = max(3, 3 * len(host.fleet.vms) // 1000)
    full = ("resync", apart, f"--collect.interval={apart}s", f"--collect.resync-interval={apart}s")
    usual = ("interval", 1, "--collect.interval=1s", "--collect.resync-interval=1h")
    figures = []
    for cause, seconds_apart, *flags in (full, usual):
        with exporter(host, *flags) as running:
            _wait_for_look(running, cause)
            before, meter = running.refreshes(), watch.meter(running.folder)
            time.sleep(apart * looks_made - _EARLY * seconds_apart)
            _wait_for_look(running, cause)
            spent = meter.spent(_grown(before, running.refreshes())[cause])
        for name, value in spent.items():
            figures.append(Figure(f"look by {cause}, processor time, {name}", value, seconds))
    return figures


def _wait_for_look(running: Running, cause: str) -> None:
    """Waits until one is over, so that none is counted in part."""
    seen = running.refreshes()[cause]
    eventually(f"a look by {cause}", lambda: running.refreshes()[cause] > seen, PATIENCE)


def measure_latency(host: BenchHost, samples: int) -> list[Figure]:
    """From a change to the finding on /metrics, and from its undoing until that is gone."""
    with exporter(host) as running:
        before = running.samples()
        found = measure_latencies(host, samples)
        after = running.samples()
    figures = [figure for title, told in found.items() for figure in _of(title, told)]
    name = "microvm_exporter_event_to_publish_seconds"
    count, total = (after[f"{name}_{of}"] - before[f"{name}_{of}"] for of in ("count", "sum"))
    if count:
        mean = Figure("from an event to the snapshot, mean, as it tells", total / count, seconds)
        figures.append(mean)
    return figures


def _of(title: str, told: Latencies) -> list[Figure]:
    shown, gone = Scrapes(told["shown"], 0, 0), Scrapes(told["gone"], 0, 0)
    return [
        Figure(f"{title}, to the finding, median", shown.median, seconds),
        Figure(f"{title}, to the finding, 99th percentile", shown.p99, seconds, 1.0),
        Figure(f"{title}, undone, until it is gone, median", gone.median, seconds),
        Figure(f"{title}, undone, until it is gone, 99th percentile", gone.p99, seconds),
    ]


def measure_churn(watch: Watch, host: BenchHost, lasts: float) -> list[Figure]:
    """Ten changes a second: what it costs, how memory grows, and whether any was missed."""
    resync = min(RESYNC, max(INTERVAL, lasts / 4))
    with exporter(host, f"--collect.resync-interval={resync:.0f}s") as running:
        before, meter = running.refreshes(), watch.meter(running.folder)
        task = Task(port=PORT, changes=churn(host), rate=_CHANGES_A_SECOND, seconds=lasts)
        driver = start(host.machine, task)
        resident = [Memory.of(running.folder).resident]
        for _ in range(_STEPS):
            time.sleep(lasts / _STEPS)
            running.samples()
            resident.append(Memory.of(running.folder).resident)
        out, _ = driver.communicate()
        rates, looks = meter.rates(), _grown(before, running.refreshes())
        peak = Memory.of(running.folder).peak
        if driver.returncode:
            raise MachineError("the changes could not be made")
        made: Churned = json.loads(out)
        lost = _not_followed(host, running, resync)
        started = Memory.of(running.folder)
    shown = " ".join(f"{value / 1e6:.1f}" for value in resident)
    return [
        Figure("churn, changes a second", made["changes"] / made["seconds"], "{:.1f}".format),
        Figure("churn, for", made["seconds"], seconds),
        Figure("churn, memory, resident after it", resident[-1], size, 90e6),
        Figure("churn, memory, most at any moment", peak, size),
        Figure("churn, memory, growth of its last 80 %", _growth(resident), percent, 0.05),
        Figure("churn, memory each tenth of it, MB", resident[-1], text(shown)),
        Figure("all VMs started after it, memory, most at any moment", started.peak, size),
        Figure("all VMs started after it, memory, resident", started.resident, size),
        *lost,
        *(Figure(f"churn, a core's share, {name}", rate, percent) for name, rate in rates.items()),
        Figure("churn, looks", sum(looks.values()), text(_by_cause(looks))),
    ]


def _growth(resident: Sequence[int]) -> float:
    """As a share of what it was after a fifth, when all has been done that is ever done."""
    return resident[-1] / resident[_STEPS // 5] - 1


def _not_followed(host: BenchHost, running: Running, resync: float) -> list[Figure]:
    """Waits for two looks at everything after all changes, and tells what they found."""
    host.mend()
    wait_for_rest(running)
    seen = running.refreshes()["resync"]
    again = f"two looks at everything, one each {resync:.0f} s"
    eventually(again, lambda: running.refreshes()["resync"] >= seen + 2, 3 * resync + 60)
    samples = running.samples()
    missed = samples["microvm_exporter_missed_changes_total"]
    name = "microvm_exporter_collector_following{"
    lost = sum(value != 1 for sample, value in samples.items() if sample.startswith(name))
    return [
        Figure("churn, changes missed", missed, whole, 0),
        Figure("churn, collectors that do not follow after it", lost, whole, 0),
    ]


def measure_switch(watch: Watch, host: BenchHost) -> list[Figure]:
    """A switch that updates and restarts many VMs, from its begin until all is well again."""
    vms = list(host.fleet.vms.values())[:_RESTARTED]
    updated = [replace(vm, build=vm.build + 1) for vm in vms]
    for vm in updated:
        write_runner(host.machine, vm, host.fleet.era)
        host.fleet.vms[vm.name] = vm
    host.fleet.write_declaration(DECLARATION_AS_IT_IS)
    with exporter(host) as running:
        before, meter = running.refreshes(), watch.meter(running.folder)
        begun = time.monotonic()
        host.machine.run("sh", "-e", input=_switch(updated), timeout=PATIENCE)
        host.fleet.settle(PATIENCE)
        wait_for_rest(running)
        lasted = time.monotonic() - begun
        looks, rates = _grown(before, running.refreshes()), meter.rates()
    return [
        Figure(f"switch that restarts {len(vms)} VMs", lasted, seconds),
        Figure(
            "switch, looks a second, of events", (looks["event"] - 1) / lasted, "{:.1f}".format, 4.0
        ),
        Figure("switch, looks", sum(looks.values()), text(_by_cause(looks))),
        *(Figure(f"switch, a core's share, {name}", rate, percent) for name, rate in rates.items()),
    ]


def _switch(vms: Sequence[Vm]) -> str:
    return "\n".join(
        (
            replace_declaration(DECLARATION_AS_IT_IS),
            *(f"ln -sfT {vm.runner} {vm.state}/current" for vm in vms),
            RELOAD,
            f"systemctl restart {' '.join(vm.unit for vm in vms)}",
        )
    )


def _grown(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {cause: after[cause] - value for cause, value in before.items()}


def _by_cause(looks: Mapping[str, float]) -> str:
    return ", ".join(f"{count:,.0f} by {cause}" for cause, count in looks.items())
