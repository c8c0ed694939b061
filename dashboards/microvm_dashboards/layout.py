"""Where panels stand: lines of full width under titles, and the numbers that panels go by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.models.dashboard import GridPos

from microvm_dashboards.panels import Panel

__all__ = ["COLUMNS", "Line", "Section", "place"]

COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side with their widths, of one height; in columns and rows of the grid."""

    height: int
    panels: Sequence[tuple[int, Panel]]

    def __post_init__(self) -> None:
        if (width := sum(width for width, _ in self.panels)) != COLUMNS:
            raise ValueError(f"a line is {width} columns wide, not {COLUMNS}")


@dataclass(frozen=True, slots=True)
class Section:
    """A question, and the lines that answer it."""

    title: str
    lines: Sequence[Line]


def place(sections: Sequence[Section]) -> Iterator[Row | Panel]:
    """Give all panels, a row of the grid before each section, their places and numbers."""
    y = 0
    number = 0
    for section in sections:
        number += 1
        yield Row(section.title).id(number).grid_pos(GridPos(h=1, w=COLUMNS, x=0, y=y))
        y += 1
        for line in section.lines:
            x = 0
            for width, panel in line.panels:
                number += 1
                yield panel.id(number).grid_pos(GridPos(h=line.height, w=width, x=x, y=y))
                x += width
            y += line.height
