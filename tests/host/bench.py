"""``make bench``: what the exporter costs on a host with 1,000 MicroVMs, and node_exporter there.

It boots a disposable host, starts ``BENCH_VMS`` MicroVMs (1,000) in it, measures the exporter at
rest for ``BENCH_IDLE`` seconds (315, with the 300 between two looks at everything in them), at
``BENCH_SAMPLES`` changes of each kind (30), and while ten things a second change, for
``BENCH_CHURN`` seconds (60), has node_exporter's systemd collector tell of the same units after
that, and prints what it measured. It exits 1 when a target is missed.

``make bench-scale`` does it with 1,000 and with 5,000, without node_exporter and in less time, and
prints how each figure grows. How all is measured: docs/performance.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from host import bench_phases as phases
from host.bench_exporter import NODE_EXPORTER
from host.bench_host import BenchHost
from host.bench_report import Figure, Result, compare, percent, report, report_growth, scrapes
from host.machine import Machine, MachineError

_SIZES = (1000, 5000)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each phase lasts, in seconds, and how many changes of a kind are timed."""

    idle: float
    churn: float
    samples: int

    @classmethod
    def from_environ(cls, *, scale: bool) -> Plan:
        return cls(
            idle=max(3 * phases.INTERVAL, _environ("BENCH_IDLE", 75 if scale else 315)),
            churn=_environ("BENCH_CHURN", 30 if scale else 60),
            samples=_environ("BENCH_SAMPLES", 10 if scale else 30),
        )


def main(*arguments: str) -> int:
    if why := Machine.missing():
        print(f"make bench needs a disposable host: {why}", file=sys.stderr)
        return 1
    if not NODE_EXPORTER.exists():
        print("make bench needs node_exporter: scripts/fetch-tools brings it", file=sys.stderr)
        return 1
    try:
        reached = _scale() if "scale" in arguments else _compare()
    except (MachineError, AssertionError) as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0 if reached else 1


def _compare() -> bool:
    plan = Plan.from_environ(scale=False)
    result = _measure(_environ("BENCH_VMS", _SIZES[0]), plan, beside=True)
    print("\n" + report(result))
    return result.reached


def _scale() -> bool:
    plan = Plan.from_environ(scale=True)
    small, large = (_measure(vms, plan, beside=False) for vms in _SIZES)
    table, reached = report_growth(small, large, _SIZES[1] / _SIZES[0])
    print("\n" + table)
    return reached


def _measure(vms: int, plan: Plan, *, beside: bool) -> Result:
    _say("booting a disposable host (systemd-nspawn)")
    with Machine.boot() as machine:
        host = BenchHost.fill(machine, vms, _say)
        _say(f"{host.title} are there; half a minute without a look")
        watch = phases.Watch.begin(machine)
        looks = 8 if beside else 3
        _say(f"microvm-exporter: {plan.idle:.0f} s at rest, then scrapes")
        at_rest, ours = phases.measure_rest(watch, host, plan.idle)
        figures = [
            *_phase("starts", lambda: phases.measure_starts(host)),
            *at_rest,
            *_phase("looks", lambda: phases.measure_looks(watch, host, looks)),
            *_phase("changes of each kind", lambda: phases.measure_latency(host, plan.samples)),
            *_phase("changes all the time", lambda: phases.measure_churn(watch, host, plan.churn)),
            *_phase("a switch", lambda: phases.measure_switch(watch, host)),
            Figure("cores in use before, by others", watch.busy, percent),
        ]
        if not beside:
            return Result(host.title, [*scrapes(ours.plain, ours.gzip), *figures])
        _say("node_exporter: scrapes")
        theirs = phases.measure_node_exporter(watch, host)
        return Result(host.title, [*compare(ours, theirs), *figures], ours, theirs)


def _phase(what: str, measure: Callable[[], list[Figure]]) -> list[Figure]:
    """Measures, or says why it could not: what other phases have found is not lost by it."""
    _say(f"microvm-exporter: {what}")
    try:
        return measure()
    except (MachineError, AssertionError) as error:
        _say(f"{what}: {error}")
        return [Figure.lost(what)]


def _environ(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


def _say(what: str) -> None:
    print(f"bench: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
