"""What a Prometheus answers to a dashboard: choices of variables, data of panels, annotations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from host.prometheus import Prometheus
from screenshots.dashboard import Dashboard, Json, Query
from screenshots.variables import Choice, Choices, interpolate

_LABEL_VALUES = re.compile(r"label_values\((?:(?P<selector>.*),\s*)?(?P<label>\w+)\)", re.DOTALL)


def choose(
    dashboard: Dashboard, prometheus: Prometheus, given: Mapping[str, str], end: float
) -> dict[str, Choice]:
    """Choose a value of each variable, in their order: the one given, else all, else the first."""
    choices: dict[str, Choice] = {}
    for variable in dashboard.variables:
        name = variable["name"]
        values = offered(variable, dashboard, prometheus, choices, end)
        several = bool(variable.get("multi") or variable.get("includeAll"))
        if name in given:
            choices[name] = Choice((given[name],), several)
        elif variable.get("includeAll"):
            choices[name] = Choice(tuple(values), several, variable.get("allValue"), is_all=True)
        else:
            choices[name] = Choice(tuple(values[:1]), several)
    return choices


def offered(
    variable: Json, dashboard: Dashboard, prometheus: Prometheus, choices: Choices, end: float
) -> list[str]:
    """Give the values that the variable's menu offers."""
    if variable["type"] == "datasource":
        return ["Prometheus"]
    selector, label = label_query(variable, choices)
    times = {"start": str(end - dashboard.span), "end": str(end)}
    match = {"match[]": selector} if selector else {}
    return [str(v) for v in prometheus.api(f"label/{label}/values", **times, **match)]


def label_query(variable: Json, choices: Choices) -> tuple[str, str]:
    """Give the selector, filled in, and the label of a ``label_values(selector, label)``."""
    match = _LABEL_VALUES.fullmatch(variable["query"]["query"].strip())
    assert match, variable["query"]
    return interpolate(match["selector"] or "", choices, "prometheus"), match["label"]


def answer(query: Query, dashboard: Dashboard, prometheus: Prometheus, end: float) -> Any:
    """Give the result of a panel's query as Prometheus' API has it."""
    if query.instant:
        return prometheus.query(query.expr, end)
    return prometheus.query_range(query.expr, end - dashboard.span, end, query.step)


def events(
    annotation: Json, dashboard: Dashboard, prometheus: Prometheus, choices: Choices, end: float
) -> list[tuple[float, float]]:
    """Give from when to when an annotation marks the time axis, as Grafana reads its query.

    Points above zero, one step apart, are one region.
    """
    step = int(annotation["step"].removesuffix("s"))
    expr = dashboard.fill(annotation["expr"], choices, step, least=step)
    found: list[tuple[float, float]] = []
    for series in prometheus.query_range(expr, end - dashboard.span, end, step):
        found += _regions([at for at, value in series["values"] if float(value) > 0], step)
    return sorted(set(found))


def _regions(times: list[float], step: int) -> list[tuple[float, float]]:
    regions: list[tuple[float, float]] = []
    for at in times:
        if regions and at - regions[-1][1] <= step:
            regions[-1] = (regions[-1][0], at)
        else:
            regions.append((at, at))
    return regions
