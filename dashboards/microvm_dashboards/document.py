"""A dashboard as the JSON that is committed: what its builders give, mended and sorted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

from microvm_dashboards.layout import Section, place
from microvm_dashboards.links import DASHBOARDS, others
from microvm_dashboards.variables import Variable

__all__ = ["Page", "render"]

_OF_DATA_LINK: Final = ("title", "url")
"""What a data link has; the SDK gives it all that a link of a dashboard has."""


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard before it is laid out. ``time`` is how far back it looks, as in ``6h``."""

    uid: str
    description: str
    time: str
    variables: Sequence[Variable]
    annotations: Sequence[AnnotationQuery]
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The dashboard's file."""
    built = json.loads(json.dumps(_build(page).build(), cls=JSONEncoder))
    return json.dumps(_mend(built), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _build(page: Page) -> Dashboard:
    dashboard = (
        Dashboard(f"MicroVMs: {DASHBOARDS[page.uid][0]}")
        .uid(page.uid)
        .description(page.description)
        .tags(["drift", "microvm"])
        .readonly()
        .refresh("1m")
        .time(f"now-{page.time}", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables(list(page.variables))
        .annotations(list(page.annotations))
        .links([*others(page.uid)])
    )
    for panel in place(page.sections):
        if isinstance(panel, Row):
            dashboard.with_row(panel)
        else:
            dashboard.with_panel(panel)
    return dashboard


def _mend(dashboard: dict[str, Any]) -> dict[str, Any]:
    """Take out what the SDK writes and the schema of Grafana 13 does not have."""
    for panel in dashboard["panels"]:
        for links in _data_links(panel):
            links[:] = [{key: link[key] for key in _OF_DATA_LINK} for link in links]
        options = panel.get("options", {})
        if options.pop("footer", {}).get("enablePagination"):
            options["enablePagination"] = True  # of the footer up to Grafana 12.1
    for holder in (*dashboard["links"], *dashboard["annotations"]["list"]):
        holder.pop("placement", None)
    for variable in dashboard["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min"):
            variable.pop(key, None)
    mended: dict[str, Any] = _without_unset(dashboard)
    return mended


def _data_links(panel: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    config = panel.get("fieldConfig", {})
    yield config.get("defaults", {}).get("links", [])
    for override in config.get("overrides", []):
        yield from (one["value"] for one in override["properties"] if one["id"] == "links")


def _without_unset(value: Any) -> Any:
    """Without what says nothing; but null is infinity in a threshold and in a range."""
    match value:
        case dict():
            return {
                key: _without_unset(one)
                for key, one in value.items()
                if one is not None or "color" in value or "result" in value
            }
        case list():
            return [_without_unset(one) for one in value]
        case _:
            return value
