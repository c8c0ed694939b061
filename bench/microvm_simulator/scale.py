"""``make bench-fleet``: what a fleet of hosts costs a Prometheus with the shipped rules.

It serves the pages of ``BENCH_HOSTS`` simulated hosts (1,000) of ``BENCH_VMS`` MicroVMs (50) to a
real Prometheus, which scrapes them every ``BENCH_INTERVAL`` seconds (15), measures for
``BENCH_SECONDS`` (240), and has it answer every query of the dashboards over six hours; then all of
it with a quarter of the hosts, and prints how each figure grows. How it is measured, and what to
make of it: docs/scaling.md.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from host.bench_report import Figure, Result, percent, report_growth, seconds, size, whole
from host.service import ServiceError, missing
from microvm_simulator.fleet import host_name
from microvm_simulator.load import JOB, Load, Usage, instance, watch
from microvm_simulator.queries import Asked, ask, backfill, dashboards

_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How many hosts of how many VMs, scraped how often and watched how long, in seconds."""

    hosts: int
    vms: int
    interval: int
    seconds: int

    @classmethod
    def from_environ(cls) -> Plan:
        return cls(
            hosts=_environ("BENCH_HOSTS", 1000),
            vms=_environ("BENCH_VMS", 50),
            interval=_environ("BENCH_INTERVAL", 15),
            seconds=_environ("BENCH_SECONDS", 240),
        )


def main() -> int:
    if why := missing("prometheus", "promtool"):
        print(f"make bench-fleet: {why}", file=sys.stderr)
        return 1
    plan = Plan.from_environ()
    small_plan = replace(plan, hosts=plan.hosts // _GROWTH)
    try:
        large, small = measure(plan), measure(small_plan)
    except (ServiceError, TimeoutError, subprocess.CalledProcessError) as error:
        print(f"make bench-fleet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    table, _ = report_growth(small, large, _GROWTH)
    print("\n" + table)
    return 0


def measure(plan: Plan) -> Result:
    """Measure one fleet. TimeoutError when its targets do not come up."""
    say(f"{plan.hosts:,} hosts of {plan.vms} MicroVMs, scraped every {plan.interval} s")
    with Load(plan.hosts, plan.vms, plan.interval) as load:
        load.wait_until_up(60 + 4 * plan.interval)
        _give_a_day(load, time.time() - plan.interval)
        say(f"watching for {plan.seconds} s")
        usage = watch(load, plan.seconds, say)
        for taken, rule in load.slowest_rules()[:3]:
            say(f"slow rule: {rule}: {seconds(taken)}")
        figures = [*_costs(plan, load, usage), *_queries(plan, load)]
        return Result(f"{plan.hosts:,} hosts of {plan.vms} VMs", figures)


def _costs(plan: Plan, load: Load, usage: Usage) -> Iterator[Figure]:
    vms = plan.hosts * plan.vms
    yield Figure("series", usage.series, whole)
    yield Figure("series of a host", usage.series / plan.hosts, one_place)
    yield Figure("series of a VM, its share of its host's", usage.series / vms, one_place)
    yield Figure("samples a second", usage.samples_per_second, whole)
    yield Figure("bytes of a scrape, compressed", load.page_size(), size)
    yield Figure("scrape, 99th percentile", usage.scrape_p99, seconds)
    yield Figure("memory, resident, at the end", usage.memory, size)
    yield Figure("memory, resident, most", usage.memory_most, size)
    yield Figure("memory a series, bytes", usage.memory / usage.series, whole)
    yield Figure("processor, a core's share", usage.cpu, percent)
    yield Figure("processor of the simulator, a core's share", usage.fleet_cpu, percent)
    for group, taken in sorted(usage.groups.items()):
        yield Figure(f"rules `{group}`, median", statistics.median(taken), seconds)
        yield Figure(f"rules `{group}`, most", max(taken), seconds)
    yield Figure("rules, share of their intervals", usage.rules_share, percent)
    yield Figure("rule evaluations missed or failed", usage.missed, whole)
    yield Figure("alerts, pending or firing", load.count("ALERTS"), whole)
    yield Figure("recorded series", load.count('{__name__=~".+:.+"}'), whole)


def _give_a_day(load: Load, end: float) -> None:
    """Have the series that rules and dashboards look back at, as if the load had begun long ago.

    These are what the rules record, what they look at over a day, and all of the host whose
    dashboards are opened. Rules and dashboards take the longer for it.
    """
    say("all up; giving the day before to what rules and dashboards look back at")
    load.wait_until_recorded(120)
    selectors = (
        '{__name__=~".+:.+"}',
        f'{{job="{JOB}", __name__=~"up|microvm_exporter_missed_changes_total"}}',
        f'{{job="{JOB}", instance="{instance(0)}", __name__!~".+:.+|up|.+_missed_changes_total"}}',
    )
    number = backfill(load.prometheus, load.prometheus.folder / "data", selectors, end)
    load.wait_for_blocks(150)
    say(f"{number:,} samples are there")


def _queries(plan: Plan, load: Load) -> Iterator[Figure]:
    given = {"job": JOB, "instance": instance(0), "vm": f"{host_name(0)}-vm00"}
    for path in dashboards():
        asked = ask(path, load.prometheus, plan.interval, given, time.time())
        yield from _dashboard(path, asked)


def _dashboard(path: Path, asked: Sequence[Asked]) -> Iterator[Figure]:
    name = path.stem.removeprefix("microvm-")
    slowest = max(asked, key=lambda one: one.seconds)
    say(f"{name}: {len(asked)} queries; slowest: {slowest.panel!r}: {slowest.expr}")
    yield Figure(
        f"{name} dashboard, all queries, one by one", sum(a.seconds for a in asked), seconds
    )
    yield Figure(f"{name} dashboard, slowest query", slowest.seconds, seconds)
    yield Figure(f"{name} dashboard, most series of a query", max(a.series for a in asked), whole)


def one_place(value: float) -> str:
    return f"{value:.1f}"


def say(what: str) -> None:
    print(f"bench-fleet: {what}", flush=True)


def _environ(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


if __name__ == "__main__":
    sys.exit(main())
