"""A history of six simulated hosts, made by the exporter's own code, as blocks of Prometheus.

    PYTHONPATH=bench:tests python -m microvm_simulator.history DIR [END]

fills DIR, so that a Prometheus with ``--storage.tsdb.path=DIR`` serves it, and prints the Unix
time of its end. A Prometheus that has nothing else to tell should be started with
``--query.lookback-delta=75s``: blocks that are made afterwards have no staleness markers, so what
is gone would be shown for five minutes more.

Real: the findings, every ``microvm_*`` sample and the page it is rendered on, for each scrape of
each host; recorded series and ``ALERTS``, by Prometheus' own evaluation of the shipped rules (see
`microvm_simulator.rules`); the blocks. As Prometheus would have made them: ``up``, ``scrape_*``.
Simulated: what the collectors brought and how long they took, and ``process_*``
(`microvm_simulator.host`).
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from microvm_simulator.beginnings import BUILDERS
from microvm_simulator.blocks import make_blocks
from microvm_simulator.host import SimulatedHost
from microvm_simulator.rules import RULES, Span, evaluate
from microvm_simulator.samples import Samples, Target
from microvm_simulator.story import DOWN, GONE, STORY

__all__ = ["HISTORY", "History", "scrape", "write_blocks"]


@dataclass(frozen=True, slots=True)
class History:
    """What is in it that is worth opening. Hosts are told by their label ``instance``."""

    job: str = "microvm"
    length: int = 8 * 3600
    """Seconds from its beginning to its end."""
    step: int = 30
    """Seconds between two scrapes."""
    flag: str = "--query.lookback-delta=75s"
    """What a Prometheus on it should be started with: rules are evaluated once a minute."""
    instances: tuple[str, ...] = tuple(f"{name}.example:10686" for name in BUILDERS)
    drifted_host: str = "alder.example:10686"
    """Has findings of every severity at the end."""
    failed_collector_host: str = "birch.example:10686"
    """Its systemd could not be read from minute 110 to 140."""
    restarted_host: str = "cedar.example:10686"
    """Its exporter was down from minute 230 to 252."""
    vanished_host: str = "oak.example:10686"
    """Left service discovery at minute 415."""
    vm: str = "web"
    """Of the drifted host: a crash loop from minute 300 to 345."""
    dotted_vm: str = "mail.internal"
    """Of the drifted host: updated at minute 60, restarted at minute 150."""

    def span(self, end: float) -> Span:
        """Give the steps of a history that ends at ``end`` (Unix seconds), or just before."""
        last = int(end) // self.step * self.step
        return Span(last - self.length, last, self.step)


HISTORY: Final = History()


def write_blocks(directory: Path, end: float) -> None:
    """Fill the directory with the blocks of a history that ends at ``end`` (Unix seconds)."""
    span = HISTORY.span(end)
    samples = scrape(span)
    for name, at, value in evaluate(RULES, samples, span):
        samples.add(name, value, at)
    make_blocks(samples, directory)


def scrape(span: Span) -> Samples:
    """Give what Prometheus gets of all hosts from the beginning of their story on."""
    samples = Samples()
    for name, make_world in BUILDERS.items():
        _Life(SimulatedHost(name, make_world(), span.begin), span).tell(samples)
    return samples


class _Life:
    """A host through all its steps, and what Prometheus gets of it."""

    def __init__(self, host: SimulatedHost, span: Span) -> None:
        self._host = host
        self._span = span
        self._target = Target(HISTORY.job, f"{host.name}.example:10686")
        self._story = [(self._minute(minute), happen) for minute, happen in STORY[host.name]]
        self._down = range(*map(self._minute, DOWN.get(host.name, (0, 0))))
        # As many minutes as it has seconds: not before its end.
        self._gone = self._minute(GONE.get(host.name, HISTORY.length))

    def tell(self, samples: Samples) -> None:
        """Add what each scrape of the host gets, for as long as it is a target."""
        before = 0
        for now in self._span:
            while self._story and self._story[0][0] <= now:
                _, happen = self._story.pop(0)
                happen(self._host, now)
            if now >= self._gone:
                return
            before = self._scrape(samples, now, before)

    def _minute(self, minute: float) -> int:
        return self._span.begin + round(minute * 60)

    def _scrape(self, samples: Samples, now: int, before: int) -> int:
        """Scrape once, and give the number of samples; ``before`` is that of the last scrape."""
        up, number = now not in self._down, 0
        if up:
            self._host.live(now - HISTORY.step, now)
            number = samples.add_page(self._host.expose(), now, self._target)
        told = {
            "up": up,
            "scrape_duration_seconds": 0.004 + number * 2e-6 if up else 0.0005,
            "scrape_samples_scraped": number,
            "scrape_samples_post_metric_relabeling": number,
            "scrape_series_added": max(number - before, 0),
        }
        for name, value in told.items():
            samples.add(self._target.series(name), value, now)
        return number


def main() -> None:
    directory = Path(sys.argv[1])
    end = float(sys.argv[2]) if len(sys.argv) > 2 else time.time()
    directory.mkdir(parents=True, exist_ok=True)
    write_blocks(directory, end)
    print(HISTORY.span(end).end)


if __name__ == "__main__":
    main()
