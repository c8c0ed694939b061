"""What ``make bench`` found, as two tables in Markdown, and whether the targets are reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from host.measure import Memory, Scrapes

REFRESH_TARGET = 3.0  # seconds, at the median
SCRAPE_TARGET = 0.010  # seconds, at the median
MEMORY_TARGET = 120e6  # bytes, at any moment


@dataclass(frozen=True, slots=True)
class Look:
    """A refresh: seconds from its begin until it is served, and those of each collector.

    ``complete`` tells that every collector brought something, ``served`` is a Unix time.
    """

    total: float
    collectors: Mapping[str, float]
    complete: bool
    served: float


@dataclass(frozen=True, slots=True)
class Refreshes:
    """The exporter's looks, beside the first: seconds from the start to it, and memory then."""

    first: float
    first_memory: Memory
    looks: Sequence[Look]


@dataclass(frozen=True, slots=True)
class Load:
    """How an exporter served, and what a look at the host cost: a refresh, or a scrape.

    Costs are seconds of processor time, by process: its own, and those that it has work.
    """

    plain: Scrapes
    gzip: Scrapes
    cost: Mapping[str, float]
    memory: Memory


class Goal(NamedTuple):
    """A value that is to be no more than its target."""

    name: str
    value: float
    target: float
    show: Callable[[float], str]

    @property
    def reached(self) -> bool:
        return self.value <= self.target


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured. ``title`` tells on how large a host, ``busy`` how quiet a machine.

    That is the share of its cores that was in use before, by whatever else runs there.
    """

    title: str
    busy: float
    refreshes: Refreshes
    ours: Load
    theirs: Load

    @property
    def goals(self) -> Sequence[Goal]:
        looks = self.refreshes.looks
        refresh = statistics.median(look.total for look in looks)
        scrape = max(self.ours.plain.median, self.ours.gzip.median)
        peak = self.ours.memory.peak
        return (
            Goal(f"full refresh, median of {len(looks)}", refresh, REFRESH_TARGET, _time),
            Goal("scrape, median, plain or with gzip", scrape, SCRAPE_TARGET, _time),
            Goal("memory, most at any moment", peak, MEMORY_TARGET, _size),
        )


def report(result: Result) -> str:
    """Both tables, with a line feed at the end."""
    return _table(_beside(result)) + "\n" + _table(_alone(result))


def _beside(result: Result) -> Iterator[tuple[str, ...]]:
    ours, theirs = result.ours, result.theirs
    yield result.title, "ratio", "microvm-exporter", "node_exporter"
    yield "---", "--:", "--:", "--:"
    for name, value, show in _COMPARED:
        mine, other = value(ours), value(theirs)
        yield name, _ratio(mine, other), show(mine), show(other)
    for process in ours.cost:
        mine, other = ours.cost[process], theirs.cost[process]
        yield f"processor time a look, {process}", _ratio(mine, other), _time(mine), _time(other)


def _alone(result: Result) -> Iterator[tuple[str, ...]]:
    first, looks = result.refreshes.first_memory, result.refreshes.looks
    yield "microvm-exporter", "measured", "target", ""
    yield "---", "--:", "--:", "---"
    for goal in result.goals:
        verdict = "reached" if goal.reached else "missed"
        yield goal.name, goal.show(goal.value), f"≤ {goal.show(goal.target)}", verdict
    yield "full refresh, slowest", _time(max(look.total for look in looks)), "", ""
    for name in looks[0].collectors:
        median = statistics.median(look.collectors[name] for look in looks)
        yield f"collector `{name}`, median", _time(median), "", ""
    yield "from the start to the first snapshot", _time(result.refreshes.first), "", ""
    yield "memory then, resident", _size(first.resident), "", ""
    yield "memory then, proportional", _size(first.proportional), "", ""
    yield "cores in use before, by others", f"{result.busy:.0%}", "", ""


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1e3
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def _size(value: float) -> str:
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _ratio(mine: float, other: float) -> str:
    if mine <= 0 or other <= 0:
        return ""
    return f"1 : {other / mine:,.0f}" if other >= 10 * mine else f"1 : {other / mine:.1f}"


_COMPARED: Sequence[tuple[str, Callable[[Load], float], Callable[[float], str]]] = (
    ("scrape, median", lambda load: load.plain.median, _time),
    ("scrape, 99th percentile", lambda load: load.plain.p99, _time),
    ("scrape with gzip, median", lambda load: load.gzip.median, _time),
    ("scrape with gzip, 99th percentile", lambda load: load.gzip.p99, _time),
    ("samples", lambda load: load.plain.samples, _number),
    ("bytes of a scrape", lambda load: load.plain.size, _size),
    ("bytes of a scrape with gzip", lambda load: load.gzip.size, _size),
    ("memory, resident", lambda load: load.memory.resident, _size),
    ("memory, proportional", lambda load: load.memory.proportional, _size),
    ("memory, most at any moment", lambda load: load.memory.peak, _size),
)


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown that reads well as it is; the second row tells how to align."""
    header, alignment, *body = rows
    widths = [max(map(len, column)) for column in zip(header, alignment, *body, strict=True)]
    rule = [_rule(align, width) for align, width in zip(alignment, widths, strict=True)]
    lines = (
        [_cell(*cell) for cell in zip(row, alignment, widths, strict=True)]
        for row in (header, *body)
    )
    first, *others = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in (first, rule, *others))


def _rule(align: str, width: int) -> str:
    return "-" * (width - 1) + align[-1]


def _cell(text: str, align: str, width: int) -> str:
    return text.rjust(width) if align.endswith(":") else text.ljust(width)
