"""Queries: what a panel asks Prometheus."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

__all__ = ["DATASOURCE", "as_table", "now", "over_time"]

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The one that is chosen in the dashboard: none is fixed."""


def over_time(expression: str, legend: str) -> Dataquery:
    """Ask for the whole time range."""
    return _query(expression).range().legend_format(legend)


def now(expression: str) -> Dataquery:
    """Ask for the end of the time range alone."""
    return _query(expression).instant()


def as_table(expression: str) -> Dataquery:
    """Ask for the end of the time range, a row a series and a column a label."""
    return _query(expression).instant().format(PromQueryFormat.TABLE)


def _query(expression: str) -> Dataquery:
    return Dataquery().datasource(DATASOURCE).editor_mode(QueryEditorMode.CODE).expr(expression)
