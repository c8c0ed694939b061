"""A real Prometheus that scrapes a fleet of simulated hosts, with the shipped rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from host.measure import cpu_seconds
from host.prometheus import Prometheus
from host.service import ServiceError
from microvm_simulator.fleet import HOSTS_A_SERVER, host_name
from microvm_simulator.rules import RULES

__all__ = ["JOB", "Load", "Usage", "instance", "watch"]

JOB: Final = "microvm"

_PAUSE: Final = 5.0


def instance(number: int) -> str:
    """Give the label ``instance`` of a host."""
    return f"{host_name(number)}.example:10686"


class Load:
    """The fleet in a process of its own, and the Prometheus. `with` ends both."""

    def __init__(self, hosts: int, vms: int, interval: int) -> None:
        self._hosts = hosts
        self._interval = interval
        self._fleet = subprocess.Popen(
            [sys.executable, "-m", "microvm_simulator.fleet", str(hosts), str(vms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def __enter__(self) -> Self:
        assert self._fleet.stdout
        try:
            ports = self._fleet.stdout.readline()
            if not ports:
                raise ServiceError("the simulated fleet did not start")
            self._ports: list[int] = json.loads(ports)
            # So much that Go's collector goes by its own pace: what is measured is what it takes.
            self.prometheus = Prometheus(self._config(), memory="8GiB").__enter__()
        except BaseException:
            self._end_fleet()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.prometheus.stop()
        self._end_fleet()

    def _end_fleet(self) -> None:
        self._fleet.communicate()  # the end of its input ends it

    @property
    def processes(self) -> tuple[subprocess.Popen[Any], ...]:
        """The fleet's, and Prometheus'."""
        return self._fleet, self.prometheus.process

    def _config(self) -> str:
        targets = [
            {
                "targets": [self._address(number)],
                "labels": {"instance": instance(number), "__metrics_path__": f"/{number}"},
            }
            for number in range(self._hosts)
        ]
        every = f"{self._interval}s"
        return json.dumps(
            {
                "global": {"scrape_interval": every, "evaluation_interval": every},
                "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
                "rule_files": [str(RULES)],
            }
        )

    def _address(self, number: int) -> str:
        return f"127.0.0.1:{self._ports[number // HOSTS_A_SERVER]}"

    def wait_until_up(self, limit: float) -> None:
        """Wait until every target has been scraped; TimeoutError when that takes longer."""
        self._wait(limit, "target", lambda: self.count(f'up{{job="{JOB}"}} == 1') == self._hosts)

    def wait_until_recorded(self, limit: float) -> None:
        """Wait until the rules have been evaluated for all hosts."""
        expr = "instance:microvm_drift_findings:sum"
        self._wait(limit, "recorded series", lambda: self.count(expr) == self._hosts)

    def wait_for_blocks(self, limit: float) -> None:
        """Wait until blocks have been found; Prometheus looks for them once a minute."""
        loaded = "prometheus_tsdb_blocks_loaded"
        self._wait(limit, "block", lambda: _one(self.own(), loaded) > 0)

    def _wait(self, limit: float, what: str, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + limit
        while not there():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not every {what} is there after {limit:.0f} s")
            time.sleep(1)

    def count(self, expr: str) -> int:
        """Give how many series an expression has now."""
        found = self.prometheus.query(f"count({expr})")
        return int(found[0]["value"][1]) if found else 0

    def slowest_rules(self) -> list[tuple[float, str]]:
        """Give the seconds that each rule took last, and its name; the slowest first."""
        groups = self.prometheus.api("rules")["groups"]
        rules = [(rule["evaluationTime"], rule["name"]) for g in groups for rule in g["rules"]]
        return sorted(rules, reverse=True)

    def own(self) -> Sequence[Sample]:
        """Give what Prometheus says of itself on its ``/metrics``."""
        page = self.prometheus.request("/metrics").decode()
        return [s for family in text_string_to_metric_families(page) for s in family.samples]

    def fleet_seconds(self) -> float:
        """Give the processor time of the fleet's process."""
        return cpu_seconds(Path(f"/proc/{self._fleet.pid}"))

    def page_size(self) -> int:
        """Give how many bytes a scrape of the last host, which is healthy, is on the wire."""
        number = self._hosts - 1
        with urllib.request.urlopen(f"http://{self._address(number)}/{number}") as answer:
            return len(answer.read())


@dataclass(frozen=True, slots=True)
class Usage:
    """What a Prometheus took, while it was watched. Bytes, seconds, and shares of a core.

    ``groups`` are the durations of the rule groups' evaluations, ``intervals`` the times between.
    """

    series: float
    samples_per_second: float
    memory: float
    memory_most: float
    cpu: float
    fleet_cpu: float
    scrape_p99: float
    groups: Mapping[str, Sequence[float]]
    intervals: Mapping[str, float]
    missed: float

    @property
    def rules_share(self) -> float:
        """Of all time, how much the evaluation of the rules takes, by each group's median."""
        return sum(median(taken) / self.intervals[group] for group, taken in self.groups.items())


def watch(load: Load, duration: float, say: Callable[[str], None]) -> Usage:
    """Watch for that many seconds."""
    begun, first, fleet = time.monotonic(), load.own(), load.fleet_seconds()
    groups: dict[str, list[float]] = defaultdict(list)
    memory: list[float] = []
    own = first
    while (passed := time.monotonic() - begun) < duration or not memory:
        time.sleep(min(_PAUSE, max(duration - passed, 0.1)))
        own = load.own()
        memory.append(_one(own, "process_resident_memory_bytes"))
        for group, last in _by_group(own, "prometheus_rule_group_last_duration_seconds"):
            groups[group].append(last)
        if len(memory) % 6 == 0:
            series = _one(own, "prometheus_tsdb_head_series")
            say(f"{passed:4.0f} s: {series:,.0f} series, {memory[-1] / 1e6:,.0f} MB")
    passed = time.monotonic() - begun
    scrape_p99 = load.prometheus.query(f'quantile(0.99, scrape_duration_seconds{{job="{JOB}"}})')

    def rate(name: str) -> float:
        return (_one(own, name) - _one(first, name)) / passed

    return Usage(
        series=_one(own, "prometheus_tsdb_head_series"),
        samples_per_second=rate("prometheus_tsdb_head_samples_appended_total"),
        memory=memory[-1],
        memory_most=max(memory),
        cpu=rate("process_cpu_seconds_total"),
        fleet_cpu=(load.fleet_seconds() - fleet) / passed,
        scrape_p99=float(scrape_p99[0]["value"][1]),
        groups=groups,
        intervals=dict(_by_group(own, "prometheus_rule_group_interval_seconds")),
        missed=_one(own, "prometheus_rule_group_iterations_missed_total")
        + _one(own, "prometheus_rule_evaluation_failures_total"),
    )


def _one(own: Sequence[Sample], name: str) -> float:
    """Give a figure, added up where it has several series."""
    return sum(sample.value for sample in own if sample.name == name)


def _by_group(own: Sequence[Sample], name: str) -> Iterator[tuple[str, float]]:
    """Give a figure by rule group: ``FILE;GROUP`` is what Prometheus calls it."""
    for sample in own:
        if sample.name == name:
            yield sample.labels["rule_group"].rpartition(";")[2], sample.value
