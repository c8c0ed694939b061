"""What ``make bench`` found, as tables in Markdown, and whether the targets are reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from host.measure import Memory, Scrapes

Show = Callable[[float], str]


class Figure(NamedTuple):
    """A value, how to show it, and a target if there is one: to be no more, or no less."""

    name: str
    value: float
    show: Show
    target: float | None = None
    at_least: bool = False

    @classmethod
    def lost(cls, name: str) -> Self:
        """One that could not be measured, which reaches nothing."""
        return cls(name, math.inf, text(_LOST))

    @property
    def is_measured(self) -> bool:
        return self.value != math.inf

    @property
    def reached(self) -> bool:
        """Also when there is no target."""
        if self.target is None:
            return self.is_measured
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True, slots=True)
class Load:
    """How an exporter served, and what 15 s of being scraped once cost.

    Costs are seconds of processor time, by process: its own, and those that it has work.
    """

    plain: Scrapes
    gzip: Scrapes
    cost: Mapping[str, float]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured. ``title`` tells on how large a host.

    ``ours`` and ``theirs`` are None where node_exporter was not run.
    """

    title: str
    figures: Sequence[Figure]
    ours: Load | None = None
    theirs: Load | None = None

    @property
    def reached(self) -> bool:
        return all(figure.reached for figure in self.figures)


def report(result: Result) -> str:
    """All tables, with a line feed at the end."""
    alone = _table(_alone(result))
    if result.ours is None or result.theirs is None:
        return alone
    return _table(_beside(result.title, result.ours, result.theirs)) + "\n" + alone


def report_growth(small: Result, large: Result, factor: float) -> tuple[str, bool]:
    """A table of how the figures grow with the number of VMs, and whether none grows faster.

    What could not be measured on one of the two is missed.
    """
    before = {figure.name: figure for figure in small.figures if figure.is_measured}
    after = [figure for figure in large.figures if figure.is_measured]
    rows = [(before[figure.name], figure) for figure in after if figure.name in before]
    lines = [_growth(*row, factor) for row in rows] + [
        (figure.name, *shown, "", "missed")
        for result, shown in ((small, (_LOST, "")), (large, ("", _LOST)))
        for figure in result.figures
        if not figure.is_measured
    ]
    head = (("figure", small.title, large.title, "growth", f"≤ {factor:g}"), _RULES)
    return _table([*head, *lines]), all(line[-1] != "missed" for line in lines)


_RULES = ("---", "--:", "--:", "--:", "---")


def _growth(small: Figure, large: Figure, factor: float) -> tuple[str, ...]:
    shown = small.name, small.show(small.value), large.show(large.value)
    if min(small.value, large.value) <= 0 or small.name.endswith(_NOT_COMPARED):
        return *shown, "", ""
    growth = large.value / small.value
    return *shown, f"{growth:.1f}", "reached" if growth <= factor else "missed"


_LOST = "not measured"
_NOT_COMPARED = ("looks", "MB", "it tells", "80 %", "VMs", "others")
"""The ends of names of figures that are more than one number, or no cost, or systemd's own."""


def compare(ours: Load, theirs: Load) -> list[Figure]:
    """The targets that the scrapes of both are about."""
    faster = theirs.plain.median / ours.plain.median
    return [
        Figure("scrape, median, times as fast as node_exporter's", faster, whole, 100, True),
        *scrapes(ours.plain, ours.gzip),
    ]


def scrapes(plain: Scrapes, gzip: Scrapes) -> list[Figure]:
    return [
        Figure("scrape with gzip, median", gzip.median, seconds, 0.005),
        Figure("scrape, median", plain.median, seconds),
        Figure("scrape, 99th percentile", plain.p99, seconds),
    ]


def seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.2f} s"
    milliseconds = value * 1e3
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def size(value: float) -> str:
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def whole(value: float) -> str:
    return f"{value:,.0f}"


def percent(value: float) -> str:
    return f"{value:.2%}"


def text(shown: str) -> Show:
    """For a figure that is more than one number."""
    return lambda _: shown


def _beside(title: str, ours: Load, theirs: Load) -> Iterator[tuple[str, ...]]:
    yield title, "ratio", "microvm-exporter", "node_exporter"
    yield "---", "--:", "--:", "--:"
    for name, value, show in _COMPARED:
        mine, other = value(ours), value(theirs)
        yield name, _ratio(mine, other), show(mine), show(other)
    for process in ours.cost:
        mine, other = ours.cost[process], theirs.cost[process]
        name = f"processor time in 15 s, {process}"
        yield name, _ratio(mine, other), seconds(mine), seconds(other)


def _alone(result: Result) -> Iterator[tuple[str, ...]]:
    yield result.title, "measured", "target", ""
    yield "---", "--:", "--:", "---"
    for figure in result.figures:
        if figure.target is None:
            verdict = "" if figure.reached else "missed"
            yield figure.name, figure.show(figure.value), "", verdict
        else:
            sign = "≥" if figure.at_least else "≤"
            verdict = "reached" if figure.reached else "missed"
            target = f"{sign} {figure.show(figure.target)}"
            yield figure.name, figure.show(figure.value), target, verdict


def _ratio(mine: float, other: float) -> str:
    if mine <= 0 or other <= 0:
        return ""
    return f"1 : {other / mine:,.0f}" if other >= 10 * mine else f"1 : {other / mine:.1f}"


_COMPARED: Sequence[tuple[str, Callable[[Load], float], Show]] = (
    ("scrape, median", lambda load: load.plain.median, seconds),
    ("scrape, 99th percentile", lambda load: load.plain.p99, seconds),
    ("scrape with gzip, median", lambda load: load.gzip.median, seconds),
    ("scrape with gzip, 99th percentile", lambda load: load.gzip.p99, seconds),
    ("samples", lambda load: load.plain.samples, whole),
    ("bytes of a scrape", lambda load: load.plain.size, size),
    ("bytes of a scrape with gzip", lambda load: load.gzip.size, size),
    ("memory, resident", lambda load: load.memory.resident, size),
    ("memory, proportional", lambda load: load.memory.proportional, size),
    ("memory, most at any moment", lambda load: load.memory.peak, size),
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
