"""The kinds of panels, each with what no panel may lack: title, description, unit, "no data"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import common, dashboard

from microvm_dashboards.mappings import UNKNOWN
from microvm_dashboards.queries import DATASOURCE
from microvm_dashboards.steps import PLAIN, Steps

__all__ = [
    "Column",
    "Panel",
    "Text",
    "colour_by_name",
    "graph",
    "link_by_name",
    "panel_table",
    "tile",
    "timeline",
]

Panel = stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
_P = TypeVar("_P", stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)


@dataclass(frozen=True, slots=True)
class Text:
    """What a panel says of itself: title, what it means and what to do, what no data means."""

    title: str
    description: str
    no_data: str


def tile(
    text: Text,
    query: Dataquery,
    unit: str = "short",
    *,
    steps: Steps = PLAIN,
    mappings: Sequence[dashboard.ValueMapping] = (),
    links: Sequence[DashboardLink] = (),
    decimals: int | None = None,
) -> stat.Panel:
    """One number or word, on its colour where it is judged, else in it."""
    judged = steps is not PLAIN or bool(mappings)
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = (
        _panel(stat.Panel(), text, [query], unit)
        .mappings([*mappings, *UNKNOWN])
        .thresholds(_thresholds(steps))
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .color_mode(
            common.BigValueColorMode.BACKGROUND_SOLID if judged else common.BigValueColorMode.VALUE
        )
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(reduce)
        .data_links(list(links))
    )
    return panel if decimals is None else panel.decimals(decimals)


def graph(
    text: Text,
    queries: Sequence[Dataquery],
    unit: str = "short",
    *,
    steps: Steps | None = None,
    links: Sequence[DashboardLink] = (),
    stacked: bool = False,
    bars: bool = False,
    decimals: int | None = None,
    maximum: float | None = None,
) -> timeseries.Panel:
    """Lines over time from zero on, with a line at each threshold."""
    stacking = common.StackingMode.NORMAL if stacked else common.StackingMode.NONE
    style = common.GraphThresholdsStyleMode.DASHED if steps else common.GraphThresholdsStyleMode.OFF
    panel = (
        _panel(timeseries.Panel(), text, queries, unit)
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds(_thresholds(steps or PLAIN))
        .thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(style))
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .line_width(0 if bars or stacked else 2)  # no line where a part of a stack is zero
        .fill_opacity(70 if stacked or bars else 8)
        .stacking(common_builders.StackingConfig().mode(stacking).group("A"))
        .show_points(common.VisibilityMode.NEVER)
        .min(0)
        .legend(_LEGEND)
        .tooltip(_TOOLTIP)
        .data_links(list(links))
    )
    if maximum is not None:
        panel.max(maximum)
    if decimals is None:
        return panel
    # Where all counts are zero the axis would end at 100.
    return panel.decimals(decimals).axis_soft_max(1)


def timeline(
    text: Text,
    queries: Sequence[Dataquery],
    *,
    mappings: Sequence[dashboard.ValueMapping],
    links: Sequence[DashboardLink] = (),
) -> statetimeline.Panel:
    """States over time, a row a series. Where nothing is drawn, nothing is known."""
    return (
        _panel(statetimeline.Panel(), text, queries, "short")
        .mappings(list(mappings))
        .thresholds(_thresholds(PLAIN))
        # Coloured by threshold, Grafana would name values by the step, and look at no mapping.
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.FIXED))
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(85)
        .per_page(25)
        .legend(_LEGEND)
        .tooltip(_TOOLTIP)
        .data_links(list(links))
    )


def panel_table(
    text: Text,
    queries: Sequence[Dataquery],
    columns: Sequence[Column],
    *,
    sort: Sequence[str] = (),
    first_by: str | None = None,
    paged: bool = False,
) -> table.Panel:
    """Rows with these columns, in this order, and no others; sorted by some, greatest first.

    ``first_by`` is a field by which rows are sorted that are equal in those. ``paged`` says how
    many rows there are, where not all may be in sight.
    """
    panel = (
        _panel(table.Panel(), text, queries, "short")
        .thresholds(_thresholds(PLAIN))
        .color_scheme(FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .sort_by([_descending(name) for name in sort])
        .footer(common_builders.TableFooterOptions().enable_pagination(paged))
        .transformations(_transformations(columns, len(queries), first_by))
    )
    for column in columns:
        panel.override_by_name(column.title, column.properties())
    return panel


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the field it comes from, its title, and how its cells look.

    Those without a ``width`` share what is left, and have ``least``, by default 150 pixels.
    """

    field: str
    title: str
    width: int | None = None
    least: int | None = None
    unit: str | None = None
    mappings: Sequence[dashboard.ValueMapping] = ()
    steps: Steps | None = None
    filled: bool = False
    wrapped: bool = False
    left: bool = False
    links: Sequence[DashboardLink] = ()
    decimals: int | None = None

    def properties(self) -> list[dashboard.DynamicConfigValue]:
        """What differs from the other columns, as overrides."""
        chosen = {
            "custom.width": self.width,
            "custom.minWidth": self.least,
            "unit": self.unit,
            "decimals": self.decimals,
            "mappings": list(self.mappings) or None,
            "thresholds": None if self.steps is None else _thresholds(self.steps).build(),
            "custom.cellOptions": self._cell(),
            "custom.wrapText": self.wrapped or None,
            "custom.align": self._align(),
            # Without it a cell has the text of a table that has no rows; what leads nowhere, none.
            "noValue": " " if self.links else "—",
            "links": [link.build() for link in self.links] or None,
        }
        return [
            dashboard.DynamicConfigValue(name, value)
            for name, value in chosen.items()
            if value is not None
        ]

    def _align(self) -> str | None:
        if self.filled:
            return "center"
        return "left" if self.left or self.wrapped else None

    def _cell(self) -> object:
        if self.filled:
            return {"type": "color-background", "mode": "basic"}
        # Up to Grafana 12 wrapping was an option of the cell.
        return {"type": "auto", "wrapText": True} if self.wrapped else None


def colour_by_name(panel: timeseries.Panel, names: Mapping[str, str]) -> timeseries.Panel:
    """Give series of these names their own colours."""
    for name, colour in names.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_name(name, [dashboard.DynamicConfigValue("color", fixed)])
    return panel


def link_by_name(panel: _P, name: str, *links: DashboardLink) -> _P:
    """Have the series of this name lead elsewhere than the others, or nowhere."""
    built = [link.build() for link in links]
    panel.override_by_name(name, [dashboard.DynamicConfigValue("links", built)])
    return panel


_LEGEND: Final = (
    common_builders.VizLegendOptions()
    .display_mode(common.LegendDisplayMode.LIST)
    .placement(common.LegendPlacement.BOTTOM)
    .show_legend(True)
    .calcs([])
)
_TOOLTIP: Final = (
    common_builders.VizTooltipOptions()
    .mode(common.TooltipDisplayMode.MULTI)
    .sort(common.SortOrder.DESCENDING)
)


def _panel(panel: _P, text: Text, queries: Sequence[Dataquery], unit: str) -> _P:
    return (
        panel.title(text.title)
        .description(text.description)
        .no_value(text.no_data)
        .datasource(DATASOURCE)
        .targets([query.ref_id(chr(ord("A") + n)) for n, query in enumerate(queries)])
        .unit(unit)
    )


def _descending(name: str) -> common_builders.TableSortByFieldState:
    return common_builders.TableSortByFieldState().display_name(name).desc(True)


def _thresholds(steps: Steps) -> ThresholdsConfig:
    """The first step reaches down to -infinity, which is null in JSON."""
    first, *rest = steps.items()
    return (
        ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps(
            [
                dashboard.Threshold(value=None, color=first[1]),
                *(dashboard.Threshold(value=value, color=colour) for value, colour in rest),
            ]
        )
    )


def _transformations(
    columns: Sequence[Column], queries: int, first_by: str | None
) -> list[dashboard.DataTransformerConfig]:
    names = [column.field for column in columns]
    organize = {
        "includeByName": dict.fromkeys(names, True),
        "indexByName": {name: index for index, name in enumerate(names)},
        "renameByName": {c.field: c.title for c in columns if c.title != c.field},
    }
    options = {
        "merge": {} if queries > 1 else None,
        "sortBy": {"sort": [{"field": first_by}]} if first_by else None,
        "organize": organize,
    }
    return [
        dashboard.DataTransformerConfig(name, options=option)
        for name, option in options.items()
        if option is not None
    ]
